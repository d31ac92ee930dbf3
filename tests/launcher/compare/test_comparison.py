"""The whole comparison: its summary, and what scripts get."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

from artifacts.contract import StageKind
from launcher.compare import page, text
from launcher.compare.comparison import compare, to_json
from launcher.compare.runs import Run
from launcher.reporting.collect import RunFacts
from tests.launcher.compare.compared import OTHER_ID, pair, runs_of, with_another
from tests.launcher.synthetic_run import RUN_ID


def test_the_same_data_another_learning_rate(tmp_path: Path) -> None:
    made = compare(pair(tmp_path))
    assert made.summary == ["The same data and base model.", "training.learning_rate: 0.002 → 0.001."]


def test_more_than_a_few_settings_are_counted(tmp_path: Path) -> None:
    other = {
        "learning_rate": 1e-3,
        "epochs": 2.0,
        "weight_decay": 0.1,
        "seed": 3,
        "keep": 1,
        "max_length": 128,
    }
    made = compare(with_another(tmp_path, other=other))
    assert len(made.summary) == 6
    assert made.summary[-1] == "2 more settings differ."


def test_a_run_and_itself_under_another_name(tmp_path: Path) -> None:
    assert compare(with_another(tmp_path)).summary == ["The same data and base model.", "No setting differs."]


def test_a_stopped_run(tmp_path: Path) -> None:
    other = {"learning_rate": 1e-3}
    made = to_json(compare(with_another(tmp_path, until=StageKind.TRAIN, ending="drained", other=other)))
    assert [run["state"] for run in made["runs"]] == ["complete", "drained"]
    assert made["answers"] == {"questions": 0, "rows": []}
    assert [len(points) for points in made["curves"]["loss"]] == [90, 40]


def test_for_scripts(tmp_path: Path) -> None:
    pair(tmp_path)
    made = compare(runs_of(tmp_path, OTHER_ID, RUN_ID))
    value = json.loads(json.dumps(to_json(made)))
    assert [run["run"] for run in value["runs"]] == [OTHER_ID, RUN_ID]
    assert value["scores"]["rows"][0]["gains"] == [None, 25.0]
    assert value["scores"]["rows"][0]["verdicts"]["1"]["is_difference"] is True
    assert [row["field"] for row in value["settings"]] == ["training.learning_rate"]
    assert value["answers"]["gained-b"] == 6
    assert len(value["answers"]["rows"]) == 6
    everything = to_json(made, everything=True)
    assert len(everything["answers"]["rows"]) == 24
    assert len(everything["settings"]) > 5


def test_runs_that_only_merged_or_quantized(tmp_path: Path) -> None:
    """As `slipway merge` and `slipway quantize` leave them: neither data nor training."""
    kinds = (StageKind.MODEL, StageKind.MERGE, StageKind.QUANTIZE)
    runs = [only(run, kinds) for run in pair(tmp_path, products=True)]
    made = compare(runs)
    assert made.summary == ["The same base model.", "training.learning_rate: 0.002 → 0.001."]
    assert (made.axis, made.questions, made.scores.rows) == ("step", [], [])
    assert "GPTQ: perplexity" in text.render(made, 100)
    assert "GPTQ: perplexity" in page.render(made)


def only(run: Run, kinds: Collection[StageKind]) -> Run:
    """The run as if it had no other stages."""
    plan = dataclasses.replace(
        run.facts.plan, stages=[stage for stage in run.facts.plan.stages if stage.kind in kinds]
    )
    made = {kind: manifest for kind, manifest in run.facts.manifests.items() if kind in kinds}
    facts = RunFacts(run_id=run.run_id, plan=plan, manifests=made)
    return dataclasses.replace(run, facts=facts)
