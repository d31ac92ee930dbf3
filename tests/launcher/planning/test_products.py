"""Products that a plan refuses, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from launcher.errors import UserError
from tests.launcher.plans import EIGHT_H100, QWEN3_8B, make_plan, write_job, write_model

MIXTURE = {**QWEN3_8B, "model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 768}
NARROW = {**QWEN3_8B, "intermediate_size": 12384}
ODD = {**QWEN3_8B, "intermediate_size": 12300}


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        (NARROW, "down_proj has 12384 input channels, which groups of 128 don't divide; set quantize."),
        (ODD, "gate_proj has 12300 output channels, and GPTQ packs multiples of 32; leave quantize out"),
        (MIXTURE, "after: quantize: the model is a mixture of experts"),
    ],
)
def test_a_model_that_gptq_cannot_pack(tmp_path: Path, config: dict[str, Any], fragment: str) -> None:
    write_model(tmp_path / "model", config)
    write_job(tmp_path, model={"folder": "model"}, after=["merge", "quantize"])
    with pytest.raises(UserError) as refused:
        make_plan(tmp_path, EIGHT_H100)
    told = [str(problem) for problem in refused.value.problems]
    assert [one for one in told if fragment in one], told
    write_job(tmp_path, model={"folder": "model"}, after=["merge"])
    make_plan(tmp_path, EIGHT_H100)


def test_a_rehearsal_quantizes_in_groups_that_fit_its_twin(tmp_path: Path) -> None:
    write_model(tmp_path / "model", QWEN3_8B)
    write_job(tmp_path, model={"folder": "model"}, after=["merge", "quantize"])
    assert make_plan(tmp_path, EIGHT_H100).stage(StageKind.QUANTIZE).params.group_size == 128
    rehearsed = make_plan(tmp_path, EIGHT_H100, rehearse=True)
    assert rehearsed.stage(StageKind.QUANTIZE).params.group_size == 32
