"""The table of what goes together, its page, and what the planner makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from launcher.errors import UserError
from launcher.machine import Gpu, Machine
from launcher.planning import matrix, matrix_page
from launcher.planning.matrix import RULES, Cell, Rule
from launcher.spec.reference import DOCS
from tests.launcher.plans import (
    EIGHT_H100,
    GIB,
    LAPTOP,
    QWEN3_8B,
    make_plan,
    reasons,
    write_job,
    write_model,
)

GPTQ = {**QWEN3_8B, "quantization_config": {"quant_method": "gptq", "bits": 4}}
BLOOM = {"twin": {"architecture": "bloom"}}


def problems(folder: Path, machine: Machine = LAPTOP, **sections: Any) -> list[str]:
    write_job(folder, **sections)
    with pytest.raises(UserError) as refused:
        make_plan(folder, machine)
    return [str(problem) for problem in refused.value.problems]


def test_the_page_is_up_to_date() -> None:
    page = (DOCS / "matrix.md").read_text()
    assert page == matrix_page.page(), "`make docs` writes it anew"


def test_the_page_gives_every_reason() -> None:
    page = matrix_page.page()
    for rule in RULES:
        assert rule.refusal.why in page
        assert rule.refusal.way_out in page


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.refusal.field}: {rule.refusal.why:.40}")
def test_every_rule_says_what_others_don_t(rule: Rule) -> None:
    """Without it, a cell that it refuses would be allowed: none is hidden behind others."""
    axes = {name: sorted(values, key=str)[0] for name, values in rule.when.items()}
    cell = _cell(axes, architecture="bloom" if rule.unless else "")
    others = [other for other in RULES if other is not rule]
    assert rule.refuses(cell)
    assert any(not any(other.refuses(each) for other in others) for each in _variants(rule))


def _cell(axes: dict[str, Any], **more: Any) -> Cell:
    values: dict[str, Any] = {"method": "lora", **axes}
    if "options" in values:
        values["options"] = frozenset({values["options"]})
    return Cell(**{**more, **values})


def _variants(rule: Rule) -> list[Cell]:
    made: list[dict[str, Any]] = [{}]
    for name, values in rule.when.items():
        made = [{**axes, name: value} for axes in made for value in values]
    return [_cell(axes, architecture="bloom" if rule.unless else "") for axes in made]


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    method = {"type": "prefix_tuning", "quantization": "int8"}
    training = {"packing": True, "gradient_checkpointing": True, "optimizer": "paged_adamw"}
    strategy = {"type": "fsdp"}
    told = problems(tmp_path, method=method, training=training, strategy=strategy, after=["merge"])
    for fragment in (
        "method.type: prefix_tuning: virtual tokens are trained beside an unquantized base",
        "strategy.type: fsdp: 8-bit weights keep their scales outside",
        "training.packing: true: packed documents would see each other",
        "training.gradient_checkpointing: true: recomputed layers",
        "training.optimizer: paged_adamw",
        "after: [merge]: a prefix is no change of the model's weights",
    ):
        assert sum(fragment in problem for problem in told) == 1, fragment


def test_what_a_method_rules_out_is_left_out(tmp_path: Path) -> None:
    write_job(tmp_path, method="p_tuning_v2")
    plan = make_plan(tmp_path, EIGHT_H100)
    assert not plan.stage(StageKind.PREPARE).params.packing
    assert not plan.stage(StageKind.TRAIN).params.gradient_checkpointing
    assert [stage.kind for stage in plan.stages][-2:] == [StageKind.TRAIN, StageKind.PREDICT]
    told = reasons(plan)
    assert told["training.packing"][0] is False and "see each other" in told["training.packing"][1]
    assert told["training.gradient_checkpointing"][0] is False
    assert told["after"] == (["predict"], f"no merge: {_why('after')}")


def _why(field: str) -> str:
    return next(rule.refusal.why for rule in RULES if rule.refusal.field == field)


def test_records_are_not_packed_where_the_architecture_leaks(tmp_path: Path) -> None:
    write_job(tmp_path, model=BLOOM)
    assert not make_plan(tmp_path).stage(StageKind.PREPARE).params.packing
    (told,) = problems(tmp_path, model=BLOOM, training={"packing": True})
    assert "job.yaml" in told and "in this architecture; leave packing out" in told


def test_a_gptq_base_is_trained_as_it_is(tmp_path: Path) -> None:
    write_model(tmp_path / "model", GPTQ)
    write_job(tmp_path, model={"folder": "model"})
    plan = make_plan(tmp_path, EIGHT_H100)
    assert plan.stage(StageKind.TRAIN).params.quantization == "gptq"
    assert [stage.kind for stage in plan.stages][-1] == StageKind.PREDICT
    assert "config.json" in reasons(plan)["quantization"][1]
    assert "0.52 B × linear" in reasons(plan)["memory.worker.frozen weights"][1]
    rehearsal = make_plan(tmp_path, EIGHT_H100, rehearse=True)
    assert rehearsal.stage(StageKind.TRAIN).params.quantization == "none"  # its twin's weights are plain


@pytest.mark.parametrize(
    ("config", "method", "fragment"),
    [
        (GPTQ, {"type": "lora", "quantization": "nf4"}, "already quantized, by GPTQ"),
        (GPTQ, "full", "can't be trained: they have no gradients"),
        (
            {**QWEN3_8B, "quantization_config": {"quant_method": "awq"}},
            "lora",
            "model.folder: {folder}: the model is quantized by awq",
        ),
    ],
)
def test_what_a_quantized_base_rules_out(
    tmp_path: Path, config: dict[str, Any], method: Any, fragment: str
) -> None:
    write_model(tmp_path / "model", config)
    told = problems(tmp_path, EIGHT_H100, model={"folder": "model"}, method=method, after=[])
    assert any(fragment.format(folder=tmp_path / "model") in problem for problem in told), told


def test_an_open_strategy_is_one_that_goes_with_the_base(tmp_path: Path) -> None:
    """A model that fits no GPU whole is split by fsdp; one in 8 bits can't be split."""
    config = {**QWEN3_8B, "num_hidden_layers": 300}
    write_model(tmp_path / "model", config)
    write_job(tmp_path, model={"folder": "model"}, method={"type": "lora"})
    assert make_plan(tmp_path, EIGHT_H100).stage(StageKind.TRAIN).params.strategy == "fsdp"
    method = {"type": "lora", "quantization": "int8"}
    write_job(tmp_path, model={"folder": "model"}, method=method)
    assert make_plan(tmp_path, EIGHT_H100).stage(StageKind.TRAIN).params.strategy == "ddp"


def test_more_layers_than_there_are(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, method={"type": "partial", "last_layers": 3})
    assert "method.last_layers: 3: the model has 2 layers; use 2 or fewer" in told


@pytest.mark.parametrize(
    ("machine", "training", "fragment"),
    [
        (LAPTOP, {"attention": "flash_attention_2"}, "flash attention needs a GPU; use sdpa or auto"),
        (EIGHT_H100, {"attention": "flash_attention_2", "precision": "fp32"}, "knows no fp32"),
        (
            Machine(8, 64 * GIB, (Gpu("NVIDIA A100-SXM4-80GB", 80 * GIB, (8, 0)),)),
            {"attention": "flash_attention_3"},
            "is for Hopper GPUs",
        ),
        (
            Machine(8, 64 * GIB, (Gpu("Tesla T4", 15 * GIB, (7, 5)),)),
            {"attention": "flash_attention_2", "precision": "fp16"},
            "needs compute capability 8.0, and Tesla T4 has 7.5",
        ),
    ],
)
def test_flash_attention_that_can_t_run(
    tmp_path: Path, machine: Machine, training: dict[str, Any], fragment: str
) -> None:
    (told,) = problems(tmp_path, machine, training=training)
    assert "training.attention" in told and fragment in told


def test_one_worker_is_all_that_single_has(tmp_path: Path) -> None:
    write_job(tmp_path, strategy="single")
    assert make_plan(tmp_path).stage(StageKind.TRAIN).params.world_size == 1
    (told,) = problems(tmp_path, strategy="single", compute={"workers": 2})
    assert "strategy single has one worker" in told


def test_a_cell_without_rules_works() -> None:
    cell = Cell(method="lora", strategy="fsdp", packing=True, gradient_checkpointing=True, merge=True)
    assert matrix.refusal(cell) is None
    assert matrix.refusal(dataclasses.replace(cell, precision="fp16")) is not None
    assert matrix.refusal(dataclasses.replace(cell, precision="fp16", device="gpu")) is None
