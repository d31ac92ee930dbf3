"""Rows of metrics for whoever follows a training elsewhere: TensorBoard always, MLflow and Weights & Biases
where their own variables are set.

Rank 0 alone writes, from rows that are there anyway. What can't be reached is said once and given up: no
training fails for its followers. Each library is imported by its first use, none while the ranks start.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import queue
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]
#: In `final/`, and for each attempt below the training's `tensorboard/`. TensorBoard reads files so named.
EVENT_FILE = "tensorboard/events.out.tfevents.0.slipway"
_CLOSE_S = 30.0  # what a follower may still take at the end
_NOT_TRACKED = {"step", "time_s", "attempt"}


class Follower(Protocol):
    def append(self, row: Row) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """The followers of one attempt. `append` never waits for a network."""

    def __init__(
        self, write_events: Callable[[bytes], None], followers: Mapping[str, Callable[[], Follower]], say: Any
    ) -> None:
        self._rows: list[Row] = []
        self._write_events = write_events
        self._threads = [_FollowerThread(name, start, say) for name, start in followers.items()]

    @classmethod
    def of_environment(cls, task: Any, environment: Mapping[str, str]) -> Trackers:
        """`task` is the `train.loop.TrainTask`."""
        followers: dict[str, Callable[[], Follower]] = {}
        if environment.get("MLFLOW_TRACKING_URI"):
            followers["MLflow"] = lambda: MLflow(task, environment["MLFLOW_TRACKING_URI"])
        if environment.get("WANDB_API_KEY") or environment.get("WANDB_MODE") == "offline":
            followers["Weights & Biases"] = lambda: WeightsAndBiases(task)
        key = f"{task.prefix}/tensorboard/attempt-{task.attempt:03d}/{Path(EVENT_FILE).name}"

        def say(text: str) -> None:
            print(text, file=sys.stderr, flush=True)
            if task.events is not None:
                task.events.say("note", text=text)

        return cls(lambda data: task.store.write_bytes(key, data), followers, say)

    def append(self, row: Row) -> None:
        self._rows.append(row)
        for thread in self._threads:
            thread.rows.put(row)

    def flush(self) -> None:
        """Put this attempt's TensorBoard events to the store."""
        if self._rows:
            self._write_events(event_file(self._rows))

    def close(self) -> None:
        for thread in self._threads:
            thread.close()


class _FollowerThread:
    """Feeds one follower from a queue, until it fails or is closed."""

    def __init__(self, name: str, start: Callable[[], Follower], say: Callable[[str], None]) -> None:
        self.rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._name, self._start, self._say = name, start, say
        self._thread = threading.Thread(target=self._follow, name=f"follow-{name}", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        row = self.rows.get()
        if row is None:
            return
        try:
            follower = self._start()
            while row is not None:
                follower.append(row)
                row = self.rows.get()
            follower.close()
        except Exception as error:  # whatever a library raises for a server out of reach
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            self._say(f"{self._name} gets no metrics any more: {cause}")

    def close(self) -> None:
        self.rows.put(None)
        self._thread.join(_CLOSE_S)


class MLflow:
    """One MLflow run a training: a resumed one goes on with it. The experiment is MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, task: Any, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "slipway")
        experiment = self._client.get_experiment_by_name(name)
        identifier = experiment.experiment_id if experiment else self._client.create_experiment(name)
        found = self._client.search_runs([identifier], f"tags.`slipway.training` = '{task.prefix}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, "RUNNING")
        else:
            tags = {"slipway.training": task.prefix, "mlflow.runName": task.run_id}
            self._run = self._client.create_run(identifier, tags=tags).info.run_id
            for parameter, value in _settings(task).items():
                self._client.log_param(self._run, parameter, value)

    def append(self, row: Row) -> None:
        from mlflow.entities import Metric

        milliseconds = int(row["time_s"] * 1000)
        metrics = [Metric(name, value, milliseconds, row["step"]) for name, value in _scalars(row)]
        self._client.log_batch(self._run, metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """One run a training, by its id: a resumed one goes on with it. The project is WANDB_PROJECT."""

    def __init__(self, task: Any) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "slipway"),
            id=hashlib.sha256(task.prefix.encode()).hexdigest()[:16],
            name=task.run_id,
            resume="allow",
            config=_settings(task),
            dir=os.environ.get("WANDB_DIR") or str(task.work),
            settings=wandb.Settings(console="off", silent=True),
        )

    def append(self, row: Row) -> None:
        # A step's training row and its evaluation row come one after the other: one step of theirs.
        self._run.log(dict(_scalars(row)), step=row["step"])

    def close(self) -> None:
        self._run.finish()


def event_file(rows: Iterable[Row]) -> bytes:
    """A TensorBoard event file of these rows: one scalar for each number, by step."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    events = []
    for row in rows:
        if not events:
            events.append(Event(wall_time=row["time_s"], file_version="brain.Event:2"))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in _scalars(row)]
        events.append(Event(wall_time=row["time_s"], step=row["step"], summary=Summary(value=values)))
    return b"".join(_framed(event.SerializeToString()) for event in events)


def _framed(data: bytes) -> bytes:
    """A record of a TFRecord file (https://www.tensorflow.org/tutorials/load_data/tfrecord). tensorboard's
    own writer does the same, but imports a second's worth of plugins."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@functools.cache
def _crc32c_table() -> list[int]:
    """Of the Castagnoli polynomial, bits reversed (RFC 3720, appendix B.4)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _scalars(row: Row) -> list[tuple[str, float]]:
    return [
        (f"{'eval' if 'eval_loss' in row else 'train'}/{name.removeprefix('eval_')}", float(value))
        for name, value in row.items()
        if name not in _NOT_TRACKED and value is not None
    ]


def _settings(task: Any) -> dict[str, Any]:
    """What the job says of the training, flat: `lora.rank`."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(task.params).items():
        parts = value.items() if isinstance(value, dict) else [(None, value)]
        flat |= {f"{name}.{part}" if part else name: inner for part, inner in parts}
    return {name: value for name, value in flat.items() if value is not None}
