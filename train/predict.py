"""Stage `predict`: the test split answered by the base and the tuned model, and scored.

Each model is loaded in a fresh process, so that the tuned one proves that its folder is all that it needs.
Processes run side by side where there are GPUs or memory for it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from artifacts.contract import ModelParams, PredictParams, StageKind
from artifacts.manifest import ArtifactWriter
from train import sharding
from train.answering import Answer, ModelSource, Question, answer
from train.processes import available_cores, die_with_parent, reset_signals
from train.scores import scores
from train.stage import StageContext, StageError, StageUserError

_MEMORY_FACTOR = 1.3  # of the weights' bytes: activations, cache, reading
_MEMORY_PER_PROCESS_BYTES = 1_000_000_000
_MAX_LOSS = 700.0  # exp of which is still a float
_WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}  # bytes


@dataclass(frozen=True)
class Task:
    """`source` answers the questions at `indices`, in one process or (a model that no device holds whole)
    spread over `ranks` of them."""

    source: ModelSource
    indices: range
    ranks: int = 1


def run(context: StageContext) -> None:
    """Write `predictions/<key>/`. Raises StageUserError where nothing can be asked."""
    params: PredictParams = context.stage.params
    questions = list(read_questions(context.input_folder("data")))
    questions = questions[: params.limit_records]
    if not questions:
        raise StageUserError(
            "no record of the test file ends with an assistant's turn", "leave predict out of `after`"
        )
    answers = answer_all(context, params, model_sources(context, params), questions)
    writer = ArtifactWriter(context.store, context.stage.output)
    with writer.open("predictions.jsonl") as stream:
        for index, question in enumerate(questions):
            row = {"index": index, "prompt": question.prompt, "reference": question.reference}
            row |= {name: given[index].text for name, given in answers.items()}
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    references = [question.reference for question in questions]
    values = {
        name: scores([each.text for each in given], references) | {"perplexity": perplexity(given)}
        for name, given in answers.items()
    }
    writer.write_bytes("scores.json", json.dumps({**values, "records": len(questions)}, indent=2).encode())
    writer.commit(**{f"exact_match_{name}": value["exact_match"] for name, value in values.items()})


def perplexity(answers: Sequence[Answer]) -> float | None:
    """Of the reference answers, over all their tokens, to 4 significant digits; None where it is beyond
    number, or there are no tokens."""
    tokens = sum(answer.reference_tokens for answer in answers)
    loss = sum(answer.reference_loss for answer in answers) / max(tokens, 1)
    return float(f"{math.exp(loss):.4g}") if tokens and loss < _MAX_LOSS else None


def read_questions(folder: Path) -> Iterator[Question]:
    """Of each test conversation what was said before the assistant's last words, and these as the
    reference."""
    for shard in sorted(folder.glob("test-*.jsonl")):
        with shard.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                messages = record.get("messages", [])
                turns = [
                    at
                    for at, message in enumerate(messages)
                    if message["role"] == "assistant" and message["content"]
                ]
                if turns and turns[-1] > 0:
                    reference = messages[turns[-1]]["content"]
                    yield Question(messages[: turns[-1]], reference, record.get("tools"))


def model_sources(context: StageContext, params: PredictParams) -> list[ModelSource]:
    """The models to ask. The tuned one is the merged model, else what training left: a whole model, or an
    adapter for the base. The base is asked with the tuned one's tokenizer and template."""
    model: ModelParams = context.plan.stage(StageKind.MODEL).params
    trust = model.trust_remote_code
    base = context.input_folder("model")
    tuned = context.input_folder("tuned")
    merged = context.stage.inputs["tuned"].startswith(StageKind.MERGE.folder)
    whole = tuned if merged else completed(tuned, base, context.work / "tuned")
    if (tuned / "adapter_config.json").is_file():
        after = ModelSource("tuned", base, tuned, trust, tokenizer=whole)
    else:
        after = ModelSource("tuned", whole, None, trust)
    return [*([ModelSource("base", base, None, trust, tokenizer=whole)] if params.base else []), after]


def completed(trained: Path, base: Path, folder: Path) -> Path:
    """A folder of links to the trained files and, for what training did not write (tokenizer, configs), to
    the base model's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {path.name for path in base.glob("*.safetensors*")}
    files = {path.name: path for path in base.iterdir() if path.name not in weights}
    for name, path in (files | {path.name: path for path in trained.iterdir()}).items():
        (folder / name).symlink_to(path.absolute())
    return folder


def answer_all(
    context: StageContext,
    params: PredictParams,
    sources: Sequence[ModelSource],
    questions: Sequence[Question],
) -> dict[str, list[Answer]]:
    """Model name -> its answers, in the order of the questions."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # forked processes can't use a CUDA context made here
    import transformers.generation  # noqa: F401 - imported once, before the processes are forked

    gpus = gpu_count()
    devices = slots(gpus, sources, available_memory_bytes())
    ranks = ranks_of(sources, params.precision, gpu_memory_bytes(), gpus) if gpus else 1
    tasks = split(sources, len(questions), len(devices), ranks)
    answers: dict[str, list[Any]] = {source.name: [None] * len(questions) for source in sources}
    done, total = 0, len(sources) * len(questions)
    context.events.progress(done, total, "answers")
    for task, batch in run_processes(tasks, devices, params, questions):
        for index, given in batch:
            answers[task.source.name][task.indices[index]] = given
        done += len(batch)
        context.events.progress(done, total, "answers")
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
    """Counted through NVML (see `answer_all`)."""
    import torch

    return torch.cuda.device_count()


def gpu_memory_bytes() -> int:
    """Of the smallest GPU, free or not; asked of the driver's own tool (see `answer_all`)."""
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
