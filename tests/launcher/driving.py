"""What the tests of the driving side share: a plan with every stage, and stages that only sleep and write."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from artifacts.contract import (
    DataParams,
    MergeParams,
    ModelParams,
    Plan,
    PredictParams,
    PrepareParams,
    StageKind,
    StagePlan,
    TwinParams,
)
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from artifacts.store import Store
from launcher import record
from launcher.backends.local import LocalBackend
from launcher.progress.journal import Journal
from tests import plan_parts

FAKE_HOST = (sys.executable, str(Path(__file__).with_name("fake_host.py")))


def make_plan(store: Store, *, name: str = "bot", key: str = "a", kinds: str = "") -> Plan:
    """All six stages (or those named in `kinds`), with keys `<key><first letters of the kind>…`."""

    def node(kind: StageKind, params: object, **inputs: StagePlan) -> StagePlan:
        digits = (key + kind.encode().hex()).ljust(64, "0")[:64]
        return plan_parts.stage(kind, params, digits, **inputs)

    data = node(StageKind.DATA, DataParams(splits={}))
    model = node(StageKind.MODEL, ModelParams(source="twin", twin=TwinParams()), data=data)
    prepare = node(StageKind.PREPARE, PrepareParams(max_length=64, packing=True), data=data, model=model)
    training = plan_parts.train_params(method="lora", steps=6)
    train = node(StageKind.TRAIN, training, model=model, prepare=prepare)
    merge = node(StageKind.MERGE, MergeParams(), model=model, train=train)
    predict = node(StageKind.PREDICT, PredictParams(), data=data, model=model, tuned=merge)
    stages = [data, model, prepare, train, merge, predict]
    named = [stage for stage in stages if not kinds or stage.kind in kinds.split()]
    return plan_parts.plan(store, named, name)


def make_data(stage: StagePlan, store: Store, events: Events, work: Path) -> bool:
    """Stands in for the data stage."""
    events.progress(2, 2, "records")
    writer = ArtifactWriter(store, stage.output)
    writer.write_bytes("train-00000.jsonl", b"{}\n")
    writer.commit()
    return True


def make_run(store: LocalStore, name: str, key: str, *, complete: bool = True) -> Plan:
    """A run that is recorded and driven, with or without its artifacts."""
    plan = make_plan(store, name=name, key=key)
    record.create(store, plan, plan.run_id)
    journal = Journal(store, plan.run_id)
    journal.started(skipped=[])
    if complete:
        for stage in plan.stages:
            writer = ArtifactWriter(store, stage.output)
            writer.write_bytes("file", b"x" * 100)
            writer.commit()
        journal.finished()
    return plan


@dataclass
class Yard:
    """A store, a work folder and a stage host to try things with."""

    folder: Path
    store: LocalStore
    work: Path

    def behave(self, **attempts: list[str]) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps(attempts))

    def ledger(self) -> list[str]:
        """Kinds of stages in the order they were started; never two at once for one artifact."""
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        assert not [line for line in lines if line.startswith("OVERLAP")]
        return lines

    def backend(self, plan: Plan, **options: object) -> LocalBackend:
        return LocalBackend(plan, plan.run_id, self.store, self.work, light=make_data, **options)  # type: ignore[arg-type]


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    yard = Yard(tmp_path, LocalStore(tmp_path / "store"), tmp_path / "work")
    yard.behave()
    monkeypatch.setenv("FAKE_BEHAVIOUR", str(tmp_path / "behaviour.json"))
    monkeypatch.setattr("launcher.backends.local.HOST_COMMAND", FAKE_HOST)
    monkeypatch.setattr("launcher.backends.processes.STAGE_COMMAND", FAKE_HOST)
    monkeypatch.setattr("launcher.backends.local.run_light", make_data)
    return yard


def wait_for(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
