"""What the rest of the launcher makes of plans that train nothing: text, staging, results, products."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import Plan
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter, verify
from launcher import checkpoints, fetch, garbage, record, report
from launcher.planning import text
from launcher.progress.journal import Journal
from launcher.staging import needs_laptop, stage_local_inputs
from tests.artifacts.remote import RemoteStore
from tests.launcher.alone.folders import given, planned, write_adapter
from tests.launcher.kubernetes_plans import CPU
from tests.launcher.plans import write_data, write_model


@pytest.fixture
def quantized(tmp_path: Path) -> Plan:
    """A plan that quantizes an adapter on its base."""
    write_data(tmp_path)
    adapter = given(write_adapter(tmp_path / "adapter", str(write_model(tmp_path / "base"))))
    return planned(tmp_path, "quantize", adapter, data={"train": str(tmp_path / "train.jsonl")})


def make_all(store: LocalStore, plan: Plan) -> None:
    """The record and the artifacts of a run that is complete."""
    record.create(store, plan, plan.run_id)
    journal = Journal(store, plan.run_id)
    journal.started(skipped=[])
    for stage in plan.stages:
        events = Events(store, plan.run_id, stage.kind)
        events.say("started", pid=1)
        writer = ArtifactWriter(store, stage.output)
        writer.write_bytes("made.txt", stage.kind.encode())
        writer.commit(**({"bits": 4, "perplexity_after": 12.5} if stage.kind == "quantize" else {}))
        events.say("finished")
        events.flush()
    journal.finished()


def test_its_text_says_what_each_stage_does(quantized: Plan) -> None:
    said = text.render(quantized, {"data"}, width=200)  # type: ignore[arg-type]
    assert "GPTQ, 4 bits in groups of 128, calibrated on 256 sequences" in said
    assert "optimizer step" not in said


def test_what_it_leaves_is_found_shown_and_kept(tmp_path: Path, quantized: Plan) -> None:
    store = LocalStore(tmp_path / "store")
    make_all(store, quantized)
    assert checkpoints.of_plan(store, quantized) == []
    assert fetch.product(quantized, store, None) == quantized.stage("quantize").output
    assert fetch.product(quantized, store, "merged") == quantized.stage("merge").output
    results = record.results(store, quantized.run_id, quantized)
    assert results.products == {"quantize": record.place(store, quantized.stage("quantize").output)}
    assert garbage.find(store) == []
    page = store.read_bytes(report.write(store, quantized.run_id)).decode()
    assert "Complete" in page and "adapter adapter" in page and "12.5" in page
    assert "command: quantize" in page


def test_a_report_of_one_that_has_not_begun(tmp_path: Path, quantized: Plan) -> None:
    store = LocalStore(tmp_path / "store")
    record.create(store, quantized, quantized.run_id)
    assert "Not finished" in store.read_bytes(report.write(store, quantized.run_id)).decode()


def test_a_copy_is_known_again(tmp_path: Path, quantized: Plan) -> None:
    store = LocalStore(tmp_path / "store")
    make_all(store, quantized)
    output, folder = quantized.stage("quantize").output, tmp_path / "copy"
    assert not fetch.holds(store, output, folder)
    fetch.fetch(store, output, folder)
    assert fetch.holds(store, output, folder)
    (folder / "made.txt").write_text("quantizE")
    assert not fetch.holds(store, output, folder)
    (folder / "made.txt").write_text("quantize")
    (folder / "more.txt").write_text("")
    assert not fetch.holds(store, output, folder)


def test_folders_of_this_machine_are_brought_to_a_cluster(tmp_path: Path) -> None:
    adapter = given(write_adapter(tmp_path / "adapter", str(write_model(tmp_path / "base"))))
    plan = planned(tmp_path, "merge", adapter, profile=json.dumps(CPU))
    store = RemoteStore(tmp_path / "remote")
    assert [stage.kind for stage in needs_laptop(plan, store)] == ["image", "model", "adapter"]

    def image(stage: object, events: Events) -> None:
        ArtifactWriter(store, plan.stage("image").output).commit(pilot="r/p@sha256:1", train="r/t@sha256:2")

    stage_local_inputs(plan, plan.run_id, store, tmp_path / "work", image=image)
    assert needs_laptop(plan, store) == []
    for kind in ("model", "adapter"):
        assert verify(store, plan.stage(kind).output) == []
