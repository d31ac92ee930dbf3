from __future__ import annotations

from pathlib import Path

from artifacts.contract import ModelParams, Plan, StageKind, TwinParams
from launcher.publishing import base_model
from tests import plan_parts
from tests.artifacts.remote import RemoteStore

ON_HUB = ModelParams(source="hub", location="org/base-gptq", revision="c" * 40)


def plan_of(**params: ModelParams) -> Plan:
    stages = [plan_parts.stage(StageKind(kind), value) for kind, value in params.items()]
    return plan_parts.plan(RemoteStore(Path("/nowhere")), stages)


def test_only_the_hugging_face_hub_gives_a_name() -> None:
    assert base_model.hub_name(plan_of(model=ON_HUB), "model") == "org/base-gptq"
    scope = ModelParams(source="hub", location="org/base", revision="c" * 40, hub="modelscope")
    assert base_model.hub_name(plan_of(model=scope), "model") is None
    assert base_model.told(plan_of(model=scope), "model").hub == "modelscope"
    assert base_model.hub_name(plan_of(), "model") is None


def test_where_it_lay_is_not_told() -> None:
    folder = ModelParams(source="folder", location="/home/ada/base", sha256="d" * 64)
    for params in (folder, ModelParams(source="twin", twin=TwinParams())):
        told = base_model.told(plan_of(model=params), "model")
        assert "/" not in told.name and told.hub is None and told.pin == params.sha256


def test_a_whole_model_goes_with_the_original_and_an_adapter_with_what_it_was_trained_on() -> None:
    original = ModelParams(source="hub", location="org/base", revision="e" * 40)
    plan = plan_of(model=ON_HUB, original=original)
    assert base_model.hub_name(plan, "model") == base_model.hub_name(plan, "gguf") == "org/base"
    assert base_model.hub_name(plan, "adapter") == "org/base-gptq"
