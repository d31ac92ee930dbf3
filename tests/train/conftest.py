"""Ranks for tests: processes forked from one server that imported the libraries once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:  # ranks import this file as tests.train.conftest
    sys.path.insert(0, ROOT)

from train.processes import own_progress_lock  # noqa: E402

own_progress_lock()  # tests kill processes that are forked from this one

Ranks = Callable[..., list[Any]]
TIMEOUT_S = 240


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """`ranks(n, function, *arguments)`: run `function(*arguments)` as n gloo ranks, each a process with the
    environment that a launcher gives; returns what each rank returned. A rank's exception is raised here."""
    context = preloaded()

    def run(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        module = sys.modules[function.__module__]
        cloudpickle.register_pickle_by_value(module)
        call = cloudpickle.dumps((function, arguments))
        cloudpickle.unregister_pickle_by_value(module)
        port = free_port()
        pipes, processes = [], []
        for rank in range(count):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_rank, args=(call, rank, count, port, sender), daemon=True)
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        answers = [_receive(receiver, rank) for rank, receiver in enumerate(pipes)]
        for process in processes:
            process.join()
        failures = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(answers) if not ok]
        if failures:
            raise AssertionError("\n".join(failures))
        return [cloudpickle.loads(value) for _, value in answers]

    yield run


def _receive(receiver: Any, rank: int) -> tuple[bool, Any]:
    if not receiver.poll(TIMEOUT_S):
        return False, f"no answer within {TIMEOUT_S} s"
    try:
        return receiver.recv()
    except EOFError:
        return False, "died"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def preloaded() -> Any:
    """The context whose processes are forked from a server that has the libraries."""
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.preloaded"])
    return context


def rank_environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What a launcher tells a rank of `count` on this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _rank(call: bytes, rank: int, count: int, port: int, sender: Any) -> None:
    os.environ |= rank_environment(rank, count, port)
    try:
        function, arguments = cloudpickle.loads(call)
        sender.send((True, cloudpickle.dumps(function(*arguments))))
    except BaseException:
        sender.send((False, traceback.format_exc()))
