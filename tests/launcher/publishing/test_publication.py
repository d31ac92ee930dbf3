"""The plan of `slipway publish`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind
from launcher.alone.given import GivenRun
from launcher.alone.publication import default, make, products
from launcher.errors import UserError
from launcher.spec.cluster import LocalCluster
from launcher.spec.load import Loaded, load_cluster
from tests.launcher.publishing import runs

TO = {"to": "hub://org/bot"}


@pytest.fixture
def given(tmp_path: Path) -> GivenRun:
    _, plan = runs.make(tmp_path / "store")
    kinds = [stage.kind for stage in plan.stages if stage.kind not in (StageKind.PUBLISH, StageKind.PREPARE)]
    return GivenRun(plan, kinds)


@pytest.fixture
def profile(tmp_path: Path) -> Loaded[Any]:
    file = tmp_path / "here.yaml"
    file.write_text(f"backend: local\nstore: {tmp_path / 'store'}\nwork: {tmp_path / 'work'}\n")
    return load_cluster(str(file))


def code(kind: StageKind) -> str:
    return "0" * 64


def plan_of(given: GivenRun, profile: Loaded[Any], **options: Any) -> Plan:
    assert isinstance(profile.value, LocalCluster)
    return make(given, TO | options, profile, code=code)


def test_what_is_complete_comes_along_and_one_stage_publishes_it(
    given: GivenRun, profile: Loaded[Any]
) -> None:
    plan = plan_of(given, profile)
    assert [stage.kind for stage in plan.stages] == [*given.complete, StageKind.PUBLISH]
    published = plan.stage(StageKind.PUBLISH)
    assert published.params.products == ["model", "quantized", "gguf"] and published.params.private
    outputs = {stage.kind: stage.output for stage in plan.stages}
    assert published.inputs == {
        "model": outputs[StageKind.MERGE],
        "quantized": outputs[StageKind.QUANTIZE],
        "gguf": outputs[StageKind.GGUF],
        "data": outputs[StageKind.DATA],
        "train": outputs[StageKind.TRAIN],
        "predict": outputs[StageKind.PREDICT],
    }
    assert plan.run_id != given.plan.run_id and plan.name == given.plan.name
    again = plan_of(dataclasses.replace(given, plan=plan), profile)
    assert again == plan  # published from its own run: the same


def test_options_are_those_of_a_job(given: GivenRun, profile: Loaded[Any]) -> None:
    params = (
        plan_of(given, profile, products=["adapter"], private=False, license="mit").stage("publish").params
    )
    assert (params.products, params.private, params.license) == (["adapter"], False, "mit")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "org/bot"}, r"publish.to: is neither hub://org/name nor s3://"),
        ({"products": ["weights"]}, r"publish.products"),
        ({"products": ["model", "model"]}, r"named twice"),
        ({"license": "My Licence"}, r"publish.license"),
    ],
)
def test_mistakes_are_told(
    given: GivenRun, profile: Loaded[Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        plan_of(given, profile, **options)


def test_what_a_run_has_not_made_is_not_published(given: GivenRun, profile: Loaded[Any]) -> None:
    early = GivenRun(given.plan, [StageKind.DATA, StageKind.MODEL])
    with pytest.raises(UserError, match="it has made nothing to publish; slipway resume"):
        plan_of(early, profile)
    trained = GivenRun(given.plan, [StageKind.DATA, StageKind.MODEL, StageKind.TRAIN])
    assert plan_of(trained, profile).stage("publish").params.products == ["adapter"]
    with pytest.raises(UserError, match="product gguf: the run made adapter"):
        plan_of(trained, profile, products=["gguf"])


def test_a_model_trained_whole_is_no_adapter(given: GivenRun) -> None:
    train = given.plan.stage(StageKind.TRAIN)
    whole = dataclasses.replace(train, params=dataclasses.replace(train.params, method="full", lora=None))
    plan = dataclasses.replace(given.plan, stages=[whole])
    assert products(plan, [StageKind.TRAIN]) == {"model": whole}
    assert default(["model", "adapter", "gguf"]) == ["model", "gguf"]
    assert default(["adapter", "gguf"]) == ["adapter", "gguf"]
