"""`launcher.record`: runs and their state, what they refer to, what is left when they are forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter, Manifest, write_marker
from launcher import record
from launcher.errors import UserError
from launcher.progress.journal import Journal
from launcher.status import Fail
from tests.launcher.driving import make_run


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_record_holds_the_plan_and_what_it_refers_to(store: LocalStore) -> None:
    plan = make_run(store, "bot", "a")
    assert record.load_plan(store, plan.run_id) == plan
    references = json.loads(store.read_bytes(f"runs/{plan.run_id}/references.json"))
    assert len(references) == 6 and f"train/{plan.stage('train').key}" in references


def test_states(store: LocalStore) -> None:
    complete, begun, failed = (
        make_run(store, "a", "a"),
        *(make_run(store, n, n, complete=False) for n in ("b", "c")),
    )
    Journal(store, failed.run_id).failed(failed.stages[3], Fail("loss is NaN", "lower it"), "x.log")
    runs = {run.name: run for run in record.list_runs(store, alive=[])}
    assert {name: run.state for name, run in runs.items()} == {
        "a": "complete",
        "b": "interrupted",
        "c": "failed",
    }
    assert (runs["a"].stages_complete, runs["b"].stages_complete, runs["a"].stages) == (6, 0, 6)
    assert [run.name for run in record.list_runs(store)] == ["c", "b", "a"]  # newest first
    alive = {run.name: run.state for run in record.list_runs(store, alive=[begun.run_id])}
    assert alive["b"] == "running"
    board = record.load_board(store, failed.run_id, alive=False)
    assert (board.failed_stage, board.cause, board.advice) == ("train", "loss is NaN", "lower it")
    assert complete.run_id == record.find(store, "a")


def test_finding_a_run(store: LocalStore) -> None:
    with pytest.raises(UserError, match="no run yet"):
        record.find(store, None)
    first, second, other = (
        make_run(store, "bot", "a"),
        make_run(store, "bot", "b"),
        make_run(store, "cat", "a"),
    )
    assert record.find(store, None) == other.run_id
    assert record.find(store, "bot") == second.run_id  # the newest of that job
    assert record.find(store, first.run_id) == first.run_id
    assert record.find(store, first.run_id[:8]) == first.run_id
    with pytest.raises(UserError, match="slipway runs"):
        record.find(store, "dog")
    with pytest.raises(UserError, match=f"{min(first.run_id, second.run_id)} or "):
        record.find(store, "bot-")


def test_results_of_a_complete_run(store: LocalStore) -> None:
    plan = make_run(store, "bot", "a", complete=False)
    assert record.results(store, plan.run_id, plan) == record.Results(
        model=None, products={}, report=None, scores={}, answers=[]
    )
    for stage in plan.stages[:-1]:
        ArtifactWriter(store, stage.output).commit()
    writer = ArtifactWriter(store, plan.stage("predict").output)
    rows = [
        {"prompt": [{"role": "user", "content": f"q{i}"}], "reference": "r", "base": None, "tuned": "t"}
        for i in range(5)
    ]
    writer.write_bytes("predictions.jsonl", "\n".join(map(json.dumps, rows)).encode())
    writer.write_bytes("scores.json", b'{"base": null, "tuned": {"exact_match": 81.5}, "records": 5}')
    writer.commit()
    store.write_bytes(record.report_key(plan.run_id), b"<html>")
    results = record.results(store, plan.run_id, plan)
    assert results.model == str(store.root / "merged" / plan.stage("merge").key)
    assert results.products == {"predict": str(store.root / "predictions" / plan.stage("predict").key)}
    assert results.report == str(store.root / "runs" / plan.run_id / "report.html")
    assert results.scores == {"tuned": {"exact_match": 81.5}}
    assert results.answers == [
        {"prompt": f"q{i}", "reference": "r", "base": "", "tuned": "t"} for i in range(3)
    ]


def test_a_plan_of_another_version_is_a_clear_error_and_can_be_forgotten(store: LocalStore) -> None:
    plan = make_run(store, "bot", "a")
    text = store.read_bytes(record.plan_key(plan.run_id)).replace(b'"version":1', b'"version":0')
    store.write_bytes(record.plan_key(plan.run_id), text)
    with pytest.raises(UserError, match="submit its job again"):
        record.load_plan(store, plan.run_id)
    assert record.list_runs(store)[0].run_id == plan.run_id
    record.remove(store, plan.run_id)
    assert record.run_ids(store) == []


class RemoteStore(LocalStore):
    """A store that lies elsewhere, as a bucket does."""

    uri = "s3://bucket/prefix"

    def local_path(self, key: str) -> None:  # type: ignore[override]
        return None


def test_a_place_is_a_path_where_there_is_one_else_a_uri(store: LocalStore, tmp_path: Path) -> None:
    remote = RemoteStore(tmp_path / "remote")
    for each in (store, remote):
        ArtifactWriter(each, "merged/key").commit()
        write_marker(each, "models/key", Manifest(files=[], location=(tmp_path / "my model").as_uri()))
    assert record.place(store, "merged/key") == str(store.root / "merged/key")
    assert record.place(store, "runs/x/report.html") == str(store.root / "runs/x/report.html")
    assert record.place(remote, "merged/key") == "s3://bucket/prefix/merged/key"
    assert record.place(remote, "runs/x/report.html") == "s3://bucket/prefix/runs/x/report.html"
    for each in (store, remote):
        assert record.place(each, "models/key") == str(tmp_path / "my model")
