"""The plans of merge, quantize, export and predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind
from launcher.alone.given import Given
from launcher.alone.options import Command
from launcher.backends import manifest
from launcher.errors import UserError
from launcher.names import is_run_id
from tests.launcher.alone.folders import a_run, given, kinds, planned, write_adapter
from tests.launcher.kubernetes_plans import CPU, IMAGES
from tests.launcher.plans import QWEN3_8B, write_data, write_model


@pytest.fixture
def model(tmp_path: Path) -> Given:
    return given(write_model(tmp_path / "model"))


@pytest.fixture
def adapter(tmp_path: Path) -> Given:
    return given(write_adapter(tmp_path / "Adapter 7", str(write_model(tmp_path / "base"))))


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    write_data(tmp_path)
    return {split: str(tmp_path / f"{name}.jsonl") for split, name in (("train", "train"), ("test", "test"))}


def refused(tmp_path: Path, command: Command, of: Given, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        planned(tmp_path, command, of, **options)
    return str(error.value)


def test_merging_an_adapter(tmp_path: Path, adapter: Given) -> None:
    plan = planned(tmp_path, "merge", adapter)
    assert kinds(plan) == "model adapter merge"
    assert plan.stage("merge").inputs == {
        "model": plan.stage("model").output,
        "train": plan.stage("adapter").output,
    }
    assert plan.name == "merge-adapter-7" and is_run_id(plan.run_id)
    assert Plan.from_json(plan.to_json()).run_id == plan.run_id
    assert planned(tmp_path, "merge", adapter).run_id == plan.run_id


def test_an_adapter_is_merged_before_anything_is_made_of_it(
    tmp_path: Path, adapter: Given, data: dict[str, str]
) -> None:
    merged = planned(tmp_path, "merge", adapter).stage("merge")
    exported = planned(tmp_path, "export", adapter)
    assert kinds(exported) == "model adapter merge gguf" and exported.stage("merge") == merged
    quantized = planned(tmp_path, "quantize", adapter, data={"train": data["train"]})
    assert kinds(quantized) == "data model adapter merge prepare quantize"
    assert quantized.stage("prepare").inputs["model"] == merged.output  # its tokenizer, if it has grown
    assert quantized.stage("quantize").inputs["model"] == merged.output


def test_an_adapter_answers_beside_its_base(tmp_path: Path, adapter: Given, data: dict[str, str]) -> None:
    plan = planned(tmp_path, "predict", adapter, data={"test": data["test"]})
    assert kinds(plan) == "data model adapter predict"
    assert plan.stage("predict").inputs["tuned"] == plan.stage("adapter").output
    assert not plan.stage("predict").params.base
    options = {"data": {"test": data["test"]}, "sections": {"predict": {"base": True}}}
    assert planned(tmp_path, "predict", adapter, **options).stage("predict").params.base


def test_a_model_answers_alone(tmp_path: Path, model: Given, data: dict[str, str]) -> None:
    options = {"data": {"test": data["test"]}, "sections": {"predict": {"base": True, "limit": 3}}}
    plan = planned(tmp_path, "predict", model, **options)
    assert kinds(plan) == "data model predict"
    predict = plan.stage("predict")
    assert predict.inputs["tuned"] == predict.inputs["model"] and not predict.params.base
    assert predict.params.limit_records == 3


def test_options_are_the_fields_of_a_job(tmp_path: Path, model: Given, data: dict[str, str]) -> None:
    section = {"quantize": {"bits": 8, "desc_act": True}}
    overrides = ["quantize.calibration_length=64", "template.default_system=Be kind."]
    plan = planned(
        tmp_path, "quantize", model, sections=section, overrides=overrides, data={"train": data["train"]}
    )
    quantize, prepare = plan.stage("quantize").params, plan.stage("prepare").params
    assert (quantize.bits, quantize.desc_act, prepare.max_length) == (8, True, 64)
    assert not prepare.packing and prepare.template.default_system == "Be kind."


def test_sequences_are_no_longer_than_the_model_reads(tmp_path: Path, data: dict[str, str]) -> None:
    short = given(write_model(tmp_path / "short", QWEN3_8B | {"max_position_embeddings": 512}))
    plan = planned(tmp_path, "quantize", short, data={"train": data["train"]})
    assert plan.stage("prepare").params.max_length == 512
    assert "the longest that the model reads" in {derived.reason for derived in plan.derived}


def test_files_are_named_after_the_model(tmp_path: Path, model: Given) -> None:
    plan = planned(tmp_path, "export", model, sections={"gguf": {"types": ["f16", "q8_0"]}})
    assert kinds(plan) == "model gguf"
    assert plan.stage("gguf").params.name == "model" and plan.stage("gguf").params.types == ["f16", "q8_0"]


@pytest.mark.parametrize("name", ["Qwen3_8B.final", "模型", "x" * 60, "7", "a" * 21 + "-b"])
def test_every_name_of_a_folder_makes_a_run_id(tmp_path: Path, name: str) -> None:
    assert is_run_id(
        planned(tmp_path, "quantize", given(write_model(tmp_path / name)), **_calibrated(tmp_path)).run_id
    )


def _calibrated(tmp_path: Path) -> dict[str, Any]:
    write_data(tmp_path)
    return {"data": {"train": str(tmp_path / "train.jsonl")}}


# Of a run --------------------------------------------------------------------------------------------------


def test_of_a_run_what_it_has_made_is_used(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    for command, expected in {
        "merge": "data model prepare train merge",
        "quantize": "data model prepare train merge quantize",
        "export": "data model prepare train merge gguf",
        "predict": "data model prepare train merge predict",
    }.items():
        plan = planned(tmp_path, command, run)  # type: ignore[arg-type]
        assert kinds(plan) == expected
        made = {stage.output for stage in run.plan.stages}
        anew = [stage.kind for stage in plan.stages if stage.output not in made]
        assert anew == [kind for kind in ("quantize", "gguf") if plan.has(kind)]


def test_what_a_run_has_made_counts_whatever_code_has_changed_since(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    again = planned(tmp_path, "merge", run)
    assert again.stage("merge").key == run.plan.stage("merge").key
    other = planned(tmp_path, "merge", run, overrides=["merge.max_drift=0.5"])
    assert other.stage("merge") == again.stage("merge")  # it is merged already


def test_a_run_that_did_not_merge(tmp_path: Path) -> None:
    run = a_run(tmp_path, "after=[]")
    assert kinds(planned(tmp_path, "export", run)) == "data model prepare train merge gguf"
    assert (
        planned(tmp_path, "predict", run).stage("predict").inputs["tuned"] == run.plan.stage("train").output
    )


def test_a_run_with_other_questions(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    plan = planned(tmp_path, "predict", run, data={"test": str(tmp_path / "dev.jsonl")})
    assert plan.stage("data").key != run.plan.stage("data").key
    assert plan.stage("predict").inputs["data"] == plan.stage("data").output
    assert list(plan.stage("data").params.splits) == ["test"]
    assert plan.stage("merge") == run.plan.stage("merge")


def test_a_run_of_such_a_command_is_one_to_go_on_from(tmp_path: Path, adapter: Given) -> None:
    merged = planned(tmp_path, "merge", adapter)
    run = type(a_run(tmp_path))(merged, [stage.kind for stage in merged.stages])
    plan = planned(tmp_path, "export", run)
    assert kinds(plan) == "model adapter merge gguf" and plan.stage("merge") == merged.stage("merge")
    assert plan.name == "export-adapter-7" and plan.stage("gguf").params.name == "adapter-7"


def test_a_run_that_has_not_come_that_far(tmp_path: Path) -> None:
    said = refused(tmp_path, "export", a_run(tmp_path, complete=False))
    assert "its stage model is not complete; slipway resume bot-" in said


# What is refused -------------------------------------------------------------------------------------------


def test_a_whole_model_is_not_merged(tmp_path: Path, model: Given) -> None:
    assert "model is a whole model" in refused(tmp_path, "merge", model)


@pytest.mark.parametrize("command", ["merge", "export"])
def test_an_adapter_that_is_no_change_of_weights(tmp_path: Path, command: Command) -> None:
    base = str(write_model(tmp_path / "base"))
    prefix = given(write_adapter(tmp_path / "prefix", base, peft_type="PREFIX_TUNING"))
    assert "of the type PREFIX_TUNING is no change of weights" in refused(tmp_path, command, prefix)
    trained = a_run(tmp_path, "method=p_tuning_v2", "after=[]")
    assert "a prefix is no change of the model's weights" in refused(tmp_path, command, trained)


def test_a_pickled_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "old", str(write_model(tmp_path / "base")))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "pickled adapter" in refused(tmp_path, "merge", given(folder))


@pytest.mark.parametrize(
    ("command", "words"),
    [("export", "is quantized already (gptq)"), ("quantize", "is quantized already (gptq)")],
)
def test_a_model_that_is_quantized_already(tmp_path: Path, command: Command, words: str) -> None:
    config = QWEN3_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    small = given(write_model(tmp_path / "small", config))
    assert words in refused(tmp_path, command, small, **_calibrated(tmp_path))
    adapter = given(write_adapter(tmp_path / "adapter", str(tmp_path / "small")))
    assert "name the unquantized one with --base" in refused(tmp_path, "merge", adapter)


def test_an_architecture_that_gguf_does_not_convert(tmp_path: Path) -> None:
    model = given(write_model(tmp_path / "bloom", QWEN3_8B | {"model_type": "bloom"}))
    assert "the model is a bloom, and gguf converts llama, mistral" in refused(tmp_path, "export", model)


def test_a_folder_without_weights_or_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3_8B))
    said = refused(tmp_path, "export", given(folder))
    assert "has no tokenizer" in said and "has no safetensors weights" in said


@pytest.mark.parametrize("command", ["quantize", "predict"])
def test_no_data(tmp_path: Path, model: Given, command: Command) -> None:
    assert "add --data FILE" in refused(tmp_path, command, model)


def test_data_to_measure_on_does_not_calibrate(tmp_path: Path, model: Given, data: dict[str, str]) -> None:
    assert "no data to calibrate on" in refused(tmp_path, "quantize", model, data={"eval": data["test"]})


def test_questions_without_answers(tmp_path: Path, model: Given) -> None:
    path = tmp_path / "open.jsonl"
    path.write_text('{"text": "A text, no question."}\n')
    said = refused(tmp_path, "predict", model, data={"test": str(path)})
    assert "none of its records ends with an assistant's turn" in said


def test_data_that_is_not_there(tmp_path: Path, model: Given) -> None:
    said = refused(tmp_path, "predict", model, data={"test": str(tmp_path / "none.jsonl")})
    assert "none.jsonl" in said and "does not exist" in said
    assert "not on this machine" in refused(
        tmp_path, "predict", model, data={"test": "s3://bucket/test.jsonl"}
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=3", "`slipway export` has no use for it"),
        ("gguf.types=[q2_k]", "gguf.types[0]: must be `f16`, `q8_0` or `q4_k_m`"),
        ("nonsense", "is not FIELD=VALUE"),
    ],
)
def test_settings_that_mean_nothing(tmp_path: Path, model: Given, override: str, words: str) -> None:
    assert words in refused(tmp_path, "export", model, overrides=[override])


def test_all_mistakes_at_once(tmp_path: Path, data: dict[str, str]) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3_8B))
    said = refused(tmp_path, "predict", given(folder), data={"test": str(tmp_path / "none.jsonl")})
    assert "has no tokenizer" in said and "none.jsonl" in said


def test_a_stage_in_a_cluster_has_its_image(tmp_path: Path, adapter: Given) -> None:
    said = refused(tmp_path, "export", adapter, profile=json.dumps(CPU))
    assert "gguf needs llama.cpp" in said
    profile = CPU | {"image": CPU["image"] | {"gguf": True}}
    plan = planned(tmp_path, "export", adapter, profile=json.dumps(profile))
    assert kinds(plan) == "image model adapter merge gguf" and plan.backend == "kubernetes"
    assert manifest.run_objects(plan, plan.run_id, IMAGES)
    for kind in (StageKind.MERGE, StageKind.GGUF):
        body = manifest.stage_object(plan, plan.run_id, plan.stage(kind), IMAGES)
        assert body["kind"] == "Job" and "train.pod" in str(body)


def test_a_run_on_a_quantized_base_merges_into_what_that_was_made_of(tmp_path: Path) -> None:
    config = QWEN3_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    small, whole = write_model(tmp_path / "small", config), write_model(tmp_path / "whole")
    run = a_run(tmp_path, f"model={{folder: {small}}}", "after=[]", "training.precision=fp32")
    assert "--set merge.original.folder=FOLDER" in refused(tmp_path, "merge", run)
    plan = planned(tmp_path, "merge", run, overrides=[f"merge.original.folder={whole}"])
    assert plan.stage("merge").inputs["model"] == plan.stage("original").output
    assert plan.stage("original").params.location == str(whole)


def test_what_gptq_has_no_form_for(tmp_path: Path) -> None:
    odd = given(write_model(tmp_path / "odd", QWEN3_8B | {"intermediate_size": 1000}))
    assert "quantize.group_size: 128" in refused(tmp_path, "quantize", odd, **_calibrated(tmp_path))
