"""Ranks that stay: processes that run one function after another, so that importing, the process group and
what libraries set up at first use are paid once for many cells."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle

from tests.train.conftest import free_port, preloaded, rank_environment

TIMEOUT_S = 120


class Pool:
    """`count` gloo ranks, forked from the server that has the libraries. They are ended and forked anew after
    a call that failed: ranks may still wait for one that died."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._processes: list[Any] = []
        self._pipes: list[Any] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `function(*arguments)` returns on each rank. Raises AssertionError with a rank's traceback."""
        if not self._processes:
            self._start()
        call = cloudpickle.dumps((function, arguments))
        for pipe in self._pipes:
            pipe.send(call)
        answers = [self._receive(pipe, rank) for rank, pipe in enumerate(self._pipes)]
        failures = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(answers) if not ok]
        if failures:
            self.close()
            raise AssertionError("\n".join(failures))
        return [cloudpickle.loads(value) for _, value in answers]

    def close(self) -> None:
        for process in self._processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        context, port = preloaded(), free_port()
        for rank in range(self.count):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.count, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def _receive(self, pipe: Any, rank: int) -> tuple[bool, Any]:
        # A rank that failed is told first: the others wait for it in a collective.
        if not pipe.poll(TIMEOUT_S if rank == 0 else 5):
            return False, "no answer"
        try:
            return pipe.recv()
        except EOFError:
            return False, "died"


def _serve(rank: int, count: int, port: int, pipe: Any) -> None:
    os.environ |= rank_environment(rank, count, port)
    sys.stdout = sys.stderr
    environment = dict(os.environ)
    while True:
        function, arguments = cloudpickle.loads(pipe.recv())
        try:
            answer = (True, cloudpickle.dumps(function(*arguments)))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send(answer)
        _forget()
        os.environ.clear()
        os.environ.update(environment)


def _forget() -> None:
    """What accelerate and transformers keep of a training for the rest of a process."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations import deepspeed

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    deepspeed.unset_hf_deepspeed_config()
