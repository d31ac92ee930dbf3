from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import pytest

from artifacts.contract import (
    PARAMS,
    DataFile,
    DataParams,
    Derived,
    GgufParams,
    ImageParams,
    LoraParams,
    MergeParams,
    ModelParams,
    Plan,
    PredictParams,
    PrepareParams,
    PublishParams,
    QuantizeParams,
    StageKind,
    StagePlan,
    TwinParams,
    canonical_json,
    decode,
)
from tests.plan_parts import train_params

TRAIN = train_params(
    method="lora",
    lora=LoraParams(target_modules=["q_proj", "v_proj"]),
    epochs=3,
    steps=None,
    warmup_steps=None,
    warmup_share=0.03,
    micro_batch_size=4,
    gradient_accumulation_steps=2,
    world_size=2,
    save_every=0.5,
)
PARAMS_BY_KIND: dict[StageKind, Any] = {
    StageKind.IMAGE: ImageParams(
        repository="registry.example.com/ml", base="debian:12", architectures=["9.0"]
    ),
    StageKind.DATA: DataParams(
        splits={"train": [DataFile(path="/ü.jsonl", size_bytes=3, sha256="0" * 64, format="alpaca")]}
    ),
    StageKind.MODEL: ModelParams(source="twin", twin=TwinParams()),
    StageKind.PREPARE: PrepareParams(max_length=128, packing=True),
    StageKind.TRAIN: TRAIN,
    StageKind.MERGE: MergeParams(),
    StageKind.ORIGINAL: ModelParams(source="folder", location="/original"),
    StageKind.ADAPTER: ModelParams(source="folder", location="/adapter"),
    StageKind.QUANTIZE: QuantizeParams(bits=8),
    StageKind.GGUF: GgufParams(name="bot", types=["f16", "q8_0"]),
    StageKind.PREDICT: PredictParams(limit_records=5),
    StageKind.PUBLISH: PublishParams(to="hub://org/bot", products=["model", "gguf"]),
    StageKind.IMAGE: ImageParams(repository="registry/ml", architectures=["9.0"]),
}
PLAN = Plan(
    name="bot",
    cluster="local",
    backend="local",
    store="file:///store",
    engine="torchrun",
    stages=[
        StagePlan(
            kind=kind, key=f"{kind}key", inputs={"data": "data/k"}, output=f"{kind.folder}/k", params=params
        )
        for kind, params in PARAMS_BY_KIND.items()
    ],
    job={"name": "bot", "training": {"epochs": 3}},
    derived=[Derived(field="strategy.type", value="ddp", reason="one worker")],
)


def test_every_kind_has_params_and_a_folder() -> None:
    assert set(PARAMS) == set(StageKind) == set(PARAMS_BY_KIND)
    folders = [kind.folder for kind in StageKind]
    assert folders == [
        "images",
        "data",
        "models",
        "models",
        "adapters",
        "prepared",
        "train",
        "merged",
        "quantized",
        "gguf",
        "predictions",
        "published",
    ]


def test_a_plan_survives_json() -> None:
    again = Plan.from_json(PLAN.to_json())
    assert again == PLAN and again.digest == PLAN.digest and again.run_id == PLAN.run_id
    assert (
        again.stage("train").params.lora == TRAIN.lora and again.stage(StageKind.DATA).kind is StageKind.DATA
    )


def test_canonical_json_is_one_rendering() -> None:
    assert canonical_json({"b": [1, "ü"], "a": None}) == '{"a":null,"b":[1,"ü"]}'.encode()
    reordered = json.dumps(json.loads(PLAN.to_json()), indent=3)
    assert Plan.from_json(reordered).to_json() == PLAN.to_json()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"loss": float("nan")})


def test_any_change_is_another_run() -> None:
    for change in (
        {"cluster": "prod"},
        {"store": "file:///other"},
        {"job": {}},
        {"stages": PLAN.stages[:-1]},
    ):
        assert dataclasses.replace(PLAN, **change).run_id != PLAN.run_id


def edited(path: str, value: Any) -> bytes:
    """The plan's JSON with the value at `a/0/b` replaced."""
    data = json.loads(PLAN.to_json())
    *parents, last = path.split("/")
    place = data
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("version", 2, "plan version 2"),
        ("surprise", 1, "'surprise'"),
        ("name", 5, "Plan.name"),
        ("name", None, "Plan.name"),
        ("engine", "spark", "Plan.engine"),
        ("stages", {}, "Plan.stages"),
        ("stages/0", [], "StagePlan"),
        ("stages/1/kind", "bake", "bake"),
        ("stages/1/inputs", {"data": 3}, "StagePlan.inputs"),
        ("stages/1/params", None, "DataParams"),
        ("stages/1/params/splits/train/0/size_bytes", "3", "DataFile.size_bytes"),
        ("stages/1/params/splits/train/0/extra", 1, "'extra'"),
        ("stages/4/params/learning_rate", "2e-4", "TrainParams.learning_rate"),
        ("stages/4/params/world_size", 1.5, "TrainParams.world_size"),
        ("stages/4/params/world_size", True, "TrainParams.world_size"),
        ("stages/4/params/gradient_checkpointing", 1, "TrainParams.gradient_checkpointing"),
        ("stages/4/params/lora/target_modules", [1], "LoraParams.target_modules"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path: str, value: Any, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):
        Plan.from_json(edited(path, value))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"version": 1}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Plan.from_json(text)


def test_decode_takes_whole_numbers_for_floats_and_the_fitting_type_of_a_union() -> None:
    @dataclasses.dataclass
    class Sample:
        ratio: float
        names: str | list[str]
        size: Literal["s", "m"] | None = None
        free: Any = None

    assert decode(Sample, {"ratio": 1, "names": ["a"], "free": {"x": [None]}}).names == ["a"]
    assert decode(Sample, {"ratio": 0.5, "names": "all", "size": "m"}).size == "m"
    with pytest.raises(ValueError, match=r"Sample\.size"):
        decode(Sample, {"ratio": 0.5, "names": "all", "size": "xl"})
