"""The whole chain from one job file: examples/products.yaml, published to a stand-in of the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.publishing import stand_in

ROOT = Path(__file__).parents[2]
JOB = str(ROOT / "examples/products.yaml")
#: So few steps teach next to nothing, which bounds no perplexity.
SHORT = (
    "training.steps=30",
    "training.evaluate_every=30",
    "training.save_every=30",
    "quantize.max_perplexity_increase=100",
    "gguf.types=[q4_k_m]",
    "predict.limit=8",
    "after=[merge,quantize,gguf,predict,publish]",
    "publish=hub://org/products",
)

pytestmark = [pytest.mark.products, pytest.mark.timeout(900)]


def submit(folder: Path, hub: stand_in.StandIn) -> dict[str, Any]:
    """What `slipway submit` of the example says at its end."""
    settings = [argument for field in SHORT for argument in ("--set", field)]
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": stand_in.WRITER, "HF_HOME": str(folder / "hub")}
    ended = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "submit", JOB, *settings, "--json"],
        cwd=folder,
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT), "CI": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def test_one_job_makes_and_publishes_every_product_and_then_nothing_more(tmp_path: Path) -> None:
    with stand_in.serving() as hub:
        made = submit(tmp_path, hub)
        assert made["state"] == "complete"
        assert set(made["products"]) == {"quantize", "gguf", "predict", "publish"}
        assert {path.suffix for path in Path(made["products"]["gguf"]).iterdir()} >= {".gguf"}
        config = json.loads((Path(made["products"]["quantize"]) / "config.json").read_text())
        assert config["quantization_config"]["bits"] == 4
        assert {"base", "tuned"} == set(made["scores"])
        assert len(hub.repositories["org/products"].commits) == 2  # an empty repository, then everything
        report = Path(made["report"]).read_text()
        assert all(word in report for word in ("Drift", "Perplexity", "hub://org/products"))

        logs = set((tmp_path / ".slipway/work/runs").rglob("*.log"))
        began = time.monotonic()
        assert submit(tmp_path, hub) == made
        assert set((tmp_path / ".slipway/work/runs").rglob("*.log")) == logs
        assert time.monotonic() - began < 60
        assert len(hub.repositories["org/products"].commits) == 2
