"""Stage `prepare`: conversations and a tokenizer in, packed token sequences out."""

from __future__ import annotations

import dataclasses

from artifacts.contract import PrepareParams, StageKind, StagePlan, TemplateParams
from launcher.spec.template import Template
from launcher.stages import data as data_stage
from launcher.stages.keys import CodeDigest, stage, stage_key

#: The test split is answered, not tokenized here.
SPLITS = ("train", "eval")


def template_params(template: Template) -> TemplateParams:
    """The job's section as the stage reads it: pieces as `user_prefix`, `user_suffix`, …"""
    pieces = {
        f"{role}_{side}": getattr(turn, side)
        for role in ("system", "user", "assistant", "observation")
        if (turn := getattr(template, role)) is not None
        for side in ("prefix", "suffix")
    }
    return TemplateParams(
        name=template.name,
        jinja=template.jinja,
        pieces=pieces or None,
        default_system=template.default_system,
        stop_words=template.stop_words,
        replace_eos=template.replace_eos,
    )


def plan(params: PrepareParams, data: StagePlan, model: StagePlan, code: CodeDigest) -> StagePlan:
    inputs = {"data": data_stage.content(data.params, code, SPLITS), "model": model.key}
    key = stage_key(StageKind.PREPARE, code(StageKind.PREPARE), inputs, dataclasses.asdict(params))
    return stage(StageKind.PREPARE, key, {"data": data, "model": model}, params)
