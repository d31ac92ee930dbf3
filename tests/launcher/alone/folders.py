"""Folders and plans that commands are given, without a weight that is more than a few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from artifacts.contract import Plan
from launcher.alone.given import Given, GivenRun, recognise
from launcher.alone.options import Asked, Command
from launcher.alone.planned import make
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.spec.load import load_cluster
from tests.launcher import plans

LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


def write_adapter(folder: Path, base: str | None, **config: Any) -> Path:
    folder.mkdir(parents=True)
    named = {"base_model_name_or_path": base} if base else {}
    (folder / "adapter_config.json").write_text(json.dumps({**LORA, **named, **config}))
    (folder / "adapter_model.safetensors").write_bytes(b"adapter")
    return folder


def no_run(text: str) -> GivenRun:
    raise UserError(Problem(where="", what=f"run {text}", why="not in the store"))


def given(text: object, base: str | None = None, **environment: str) -> Given:
    return recognise(str(text), base, no_run, environment)


def a_run(folder: Path, *overrides: str, complete: bool = True) -> GivenRun:
    """A planned job of which every stage, or no stage, is complete."""
    plan = plans.make_plan(folder, plans.LAPTOP, *overrides)
    return GivenRun(plan, [stage.kind for stage in plan.stages] if complete else [])


def planned(folder: Path, command: Command, of: Given, profile: str = "", **options: Any) -> Plan:
    """The plan of a command, with fixed code digests, on this machine."""
    path = folder / "profile.yaml"
    path.write_text(profile or f"backend: local\nstore: {folder}/store\nwork: {folder}/work\n")
    asked = Asked(command=command, given=of, **options)
    code, environment = plans.fixed_code, {"HF_HUB_CACHE": str(folder / "hub")}
    return make(
        asked,
        load_cluster(str(path)),
        plans.LAPTOP,
        digests=Digests(),
        code=code,
        environment=environment,
    )


def kinds(plan: Plan) -> str:
    return " ".join(stage.kind for stage in plan.stages)
