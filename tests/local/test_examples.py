"""Every example runs end to end as a rehearsal on this machine, and leaves what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.local import LocalStore
from artifacts.manifest import is_complete, local_folder

ROOT = Path(__file__).parents[2]
#: Of a twin each, and run whole by tests of their own.
WHOLE = ("quickstart", "products")
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if path.stem not in WHOLE)

pytestmark = pytest.mark.matrix


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One working directory: examples that share data or a model share its artifacts."""
    return tmp_path_factory.mktemp("examples")


def slipway(place: Path, *argv: str) -> dict[str, Any]:
    """What a command that must succeed prints as JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "launcher.cli", *argv, "--json"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CI": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


@pytest.mark.timeout(240)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_rehearses_to_its_end(place: Path, example: Path) -> None:
    plan = slipway(place, "plan", str(example), "--rehearse")
    result = slipway(place, "submit", str(example), "--rehearse")
    store = LocalStore(place / ".slipway/store")
    outputs = {stage["kind"]: stage["output"] for stage in plan["stages"]}
    assert all(is_complete(store, output) for output in outputs.values())
    params = next(stage["params"] for stage in plan["stages"] if stage["kind"] == StageKind.TRAIN)
    final = local_folder(store, outputs[StageKind.TRAIN])
    is_adapter = params["method"] not in ("full", "partial")
    assert (final / "adapter_model.safetensors").is_file() == is_adapter
    rows = [json.loads(line) for line in (final / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == params["steps"] == 8
    if StageKind.PREDICT in outputs:
        assert {"bleu4", "rouge1", "rouge2", "rougeL"} <= result["scores"]["tuned"].keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_says_how_to_run_it_and_which_model_is_meant(example: Path) -> None:
    text = example.read_text()
    assert f"slipway submit examples/{example.name} --rehearse" in text
    assert re.search(r"hub: [\w.-]+/[\w.-]+", text) and "slipway pin" in text
