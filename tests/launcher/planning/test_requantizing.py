"""A GPTQ base whose adapter is merged into the model that the base was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.local import LocalStore
from launcher.backends.local import is_light
from launcher.digests import Digests
from launcher.errors import UserError
from launcher.spec.load import load_job
from launcher.stages import in_place
from launcher.stages.done import is_done
from tests.launcher.plans import EIGHT_H100, QWEN3_8B, make_plan, reasons, write_job, write_model

GPTQ = {
    **QWEN3_8B,
    "quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": 64, "desc_act": True},
}
MERGE = {"original": {"folder": "original"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", GPTQ)
    write_model(tmp_path / "original")
    return tmp_path


def refused(folder: Path, **sections: Any) -> str:
    write_job(folder, **{"model": {"folder": "model"}, "merge": MERGE, **sections})
    with pytest.raises(UserError) as error:
        make_plan(folder, EIGHT_H100)
    (problem,) = error.value.problems
    return str(problem)


def test_the_adapter_is_merged_into_the_original_and_quantized_as_the_base_was(folder: Path) -> None:
    write_job(folder, model={"folder": "model"}, merge=MERGE)
    plan = make_plan(folder, EIGHT_H100)
    kinds = [stage.kind.value for stage in plan.stages]
    assert kinds == ["data", "model", "original", "prepare", "train", "merge", "quantize", "predict"]
    original, merge, quantize = (plan.stage(kind) for kind in ("original", "merge", "quantize"))
    assert merge.inputs == {"model": original.output, "train": plan.stage("train").output}
    assert plan.stage("train").inputs["model"] == plan.stage("model").output
    params = quantize.params
    assert (params.bits, params.group_size, params.desc_act) == (8, 64, True)
    told = reasons(plan)
    assert told["after"][0] == ["merge", "quantize", "predict"]
    assert "merged into merge.original" in told["after"][1]
    assert told["quantize.bits"] == (8, "as the model was quantized (config.json)")
    assert plan.job["quantize"] == {"bits": 8, "group_size": 64, "desc_act": True}


def test_the_original_is_the_artifact_that_the_same_base_model_is(folder: Path) -> None:
    write_job(folder, model={"folder": "model"}, merge=MERGE)
    original = make_plan(folder, EIGHT_H100).stage(StageKind.ORIGINAL)
    write_job(folder, model={"folder": "original"})
    model = make_plan(folder, EIGHT_H100).stage(StageKind.MODEL)
    assert (original.key, original.output) == (model.key, model.output)
    store = LocalStore(folder / "store")
    assert is_light(original) and in_place.commit(original, store, Digests()) is not None
    assert is_done(original, store) and is_done(model, store)


def test_what_the_job_says_of_quantizing_goes_before_what_the_base_was(folder: Path) -> None:
    write_job(
        folder,
        model={"folder": "model"},
        merge=MERGE,
        quantize={"bits": 4},
        after=["merge"],
    )
    plan = make_plan(folder, EIGHT_H100)
    params = plan.stage(StageKind.QUANTIZE).params
    assert (params.bits, params.group_size) == (4, 64)
    assert "quantize.bits" not in reasons(plan)
    assert reasons(plan)["after"][0] == ["merge", "quantize"]


def test_a_rehearsal_needs_no_original(folder: Path) -> None:
    write_job(folder, model={"folder": "model"}, merge={"original": {"hub": "org/original"}})
    plan = make_plan(folder, EIGHT_H100, rehearse=True)
    assert not plan.has(StageKind.ORIGINAL)
    assert plan.stage(StageKind.MERGE).inputs["model"] == plan.stage(StageKind.MODEL).output
    assert plan.has(StageKind.QUANTIZE)


def test_a_base_of_which_nothing_is_known_is_taken_at_the_jobs_word(folder: Path) -> None:
    model = {"hub": "org/model-GPTQ", "revision": "0" * 40}
    write_job(folder, model=model, merge=MERGE)
    plan = make_plan(folder, EIGHT_H100, environment={"HF_HOME": str(folder)})
    assert plan.stage(StageKind.TRAIN).params.quantization == "gptq"
    assert plan.has(StageKind.QUANTIZE)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"folder": "original"}}, "not quantized by GPTQ"),
        ({"merge": {"original": {"folder": "model"}}}, "it is quantized itself, by gptq"),
        ({"merge": {"original": {"hub": "org/original"}}}, "without merge.original.revision"),
        ({"after": []}, "has no effect; add merge to `after`"),
        ({"merge": {}, "after": ["merge"]}, "name the model that the base was made of as merge.original"),
    ],
)
def test_what_can_not_be_is_refused(folder: Path, sections: dict[str, Any], said: str) -> None:
    assert said in refused(folder, **sections)


def test_an_original_of_other_dimensions_is_refused(folder: Path) -> None:
    write_model(folder / "other", {**QWEN3_8B, "num_hidden_layers": 28})
    text = refused(folder, merge={"original": {"folder": "other"}})
    assert text.startswith(f"{folder}/job.yaml:") and "layers 28, the model's 36" in text


def test_relative_paths_start_at_the_job_file(folder: Path) -> None:
    job = write_job(folder, model={"folder": "model"}, merge=MERGE)
    original = load_job(job.path).value.merge.original
    assert original is not None and original.folder == str(folder / "original")
