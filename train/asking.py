"""Models asked in fresh processes: one each where a device holds it, a group of them for one that none does.

Processes run side by side where there are GPUs or memory for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from artifacts.contract import PredictParams
from artifacts.events import Events
from train import sharding
from train.answering import Answer, ModelSource, answer
from train.processes import available_cores, die_with_parent, reset_signals
from train.questions import Question
from train.stage import StageError

_MEMORY_FACTOR = 1.3  # of the weights' bytes: activations, cache, reading
_MEMORY_PER_PROCESS_BYTES = 1_000_000_000
_WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}  # bytes


@dataclass(frozen=True)
class Task:
    """`source` answers the questions at `indices`, in one process or (a model that no device holds whole)
    spread over `ranks` of them."""

    source: ModelSource
    indices: range
    ranks: int = 1


def ask_all(
    sources: Sequence[ModelSource], questions: Sequence[Question], params: PredictParams, events: Events
) -> dict[str, list[Answer]]:
    """Model name -> its answers, in the order of the questions. Raises StageError."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # forked processes can't use a CUDA context made here
    import transformers.generation  # noqa: F401 - imported once, before the processes are forked

    gpus = gpu_count()
    devices = slots(gpus, sources, available_memory_bytes())
    ranks = ranks_of(sources, params.precision, gpu_memory_bytes(), gpus) if gpus else 1
    tasks = split(sources, len(questions), len(devices), ranks)
    answers: dict[str, list[Any]] = {source.name: [None] * len(questions) for source in sources}
    done, total = 0, len(sources) * len(questions)
    events.progress(done, total, "answers")
    for task, batch in run_processes(tasks, devices, params, questions):
        for index, given in batch:
            answers[task.source.name][task.indices[index]] = given
        done += len(batch)
        events.progress(done, total, "answers")
    return answers


def ranks_of(sources: Sequence[ModelSource], precision: str, device_bytes: int, devices: int) -> int:
    """Over how many devices each model goes, by the largest. Raises StageError where all are too few."""
    largest = max(source.size_bytes * _WIDTHS[precision] / source.weight_bytes for source in sources)
    return sharding.needed(largest * _MEMORY_FACTOR, device_bytes - _MEMORY_PER_PROCESS_BYTES, devices)


def slots(gpus: int, sources: Sequence[ModelSource], memory_bytes: int) -> list[str]:
    """A device for each process that runs at the same time: the GPUs, else the CPU once per model where the
    memory holds them all, else once."""
    if gpus:
        return [f"cuda:{index}" for index in range(gpus)]
    needed = sum(int(source.size_bytes * _MEMORY_FACTOR) + _MEMORY_PER_PROCESS_BYTES for source in sources)
    side_by_side = needed <= memory_bytes and available_cores() >= len(sources)
    return ["cpu"] * (len(sources) if side_by_side else 1)


def split(sources: Sequence[ModelSource], questions: int, processes: int, ranks: int = 1) -> list[Task]:
    """A task per model, or several where there are processes for more, each of `ranks` processes."""
    parts = max(1, min(processes // ranks // len(sources), questions))
    return [Task(source, range(part, questions, parts), ranks) for source in sources for part in range(parts)]


def run_processes(
    tasks: Sequence[Task], devices: Sequence[str], params: PredictParams, questions: Sequence[Question]
) -> Iterator[tuple[Task, list[tuple[int, Answer]]]]:
    """Fork a process per task and rank, at most one per device at a time; yields answers as they come.

    Raises the StageError that a process ended with. No process outlives this.
    """
    fork = get_context("fork")
    threads = max(1, available_cores() // len(devices)) if devices[0] == "cpu" else None
    waiting, free = list(tasks), list(devices)
    running: dict[Any, tuple[Task, str, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(free) >= waiting[0].ranks:
                task = waiting.pop(0)
                for shard in shards(task.ranks):
                    device = free.pop(0)
                    receiver, sender = fork.Pipe(duplex=False)
                    process = fork.Process(
                        target=_process,
                        args=(sender, os.getpid(), task, device, threads, params, questions, shard),
                    )
                    process.start()
                    sender.close()
                    running[receiver] = (task, device, process)
            for receiver in connection.wait(list(running)):
                task, device, process = running[receiver]
                try:
                    message = receiver.recv()
                except EOFError:
                    process.join()
                    _check_ending(task, process.exitcode)
                    del running[receiver]
                    free.append(device)
                    continue
                if isinstance(message, StageError):
                    raise message
                yield task, message
    finally:
        for _, _, process in running.values():
            process.kill()
            process.join()


def shards(ranks: int) -> list[sharding.Shard | None]:
    """The places of one model's processes."""
    if ranks == 1:
        return [None]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [sharding.Shard(rank, ranks, port) for rank in range(ranks)]


def _process(
    sender: Any,
    parent: int,
    task: Task,
    device: str,
    threads: int | None,
    params: PredictParams,
    questions: Sequence[Question],
    shard: sharding.Shard | None,
) -> None:
    """What a forked process does: sends its answers batch by batch, or a StageError."""
    die_with_parent(parent)
    reset_signals()
    try:
        for batch in answer(
            task.source,
            [questions[index] for index in task.indices],
            device=device,
            precision=params.precision,
            max_new_tokens=params.max_new_tokens,
            batch_size=params.batch_size,
            threads=threads,
            shard=shard,
        ):
            sender.send(batch)
    except StageError as error:
        sender.send(type(error)(error.cause, error.advice))
    except Exception as error:
        traceback.print_exc()
        out_of_memory = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        sender.send(
            StageError(
                f"answering with the {task.source.name} model failed: {cause}",
                "lower predict.batch_size" if out_of_memory else "",
            )
        )
    finally:
        sender.close()
        sys.stdout.flush()
        sys.stderr.flush()


def _check_ending(task: Task, code: int) -> None:
    if code < 0:
        raise StageError(
            f"the process that answers with the {task.source.name} model was killed by signal {-code}",
            "if the machine ran out of memory, lower predict.batch_size",
        )
    if code > 0:
        raise StageError(f"the process that answers with the {task.source.name} model ended with {code}")


def gpu_count() -> int:
    """Counted through NVML (see `ask_all`)."""
    import torch

    return torch.cuda.device_count()


def gpu_memory_bytes() -> int:
    """Of the smallest GPU, free or not; asked of the driver's own tool (see `ask_all`)."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    return min(map(int, lines)) * 2**20


def available_memory_bytes() -> int:
    """What new processes may take on this machine, of the control group's limit where there is one."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return available
    return min(available, limit - used)
