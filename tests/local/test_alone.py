"""Commands on a model and an adapter that others have made: real stages, to their end, twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.local import elsewhere

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.products, pytest.mark.timeout(600)]


class Place:
    """A working directory with `base`, `adapter` and `test.jsonl`, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = [f"What is {n} and {n}? It is {2 * n}." for n in range(99)]
        elsewhere.write_adapter(folder / "adapter", elsewhere.write_base(folder / "base", texts))
        elsewhere.write_records(folder / "test.jsonl", 6)

    def slipway(self, *argv: str) -> dict[str, Any]:
        ended = subprocess.run(
            [sys.executable, "-m", "launcher.cli", *argv, "--json"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CI": "1"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        result: dict[str, Any] = json.loads(ended.stdout)
        return result

    def logs(self, run_id: str) -> set[Path]:
        """One for each attempt at a stage."""
        return set((self.folder / ".slipway/work/runs" / run_id / "logs").glob("*.log"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("alone"))


def test_merge_gives_what_peft_computes(place: Place) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = place.slipway("merge", "adapter", "--to", "merged")
    base = AutoModelForCausalLM.from_pretrained(place.folder / "base")
    whole = AutoModelForCausalLM.from_pretrained(place.folder / "merged")
    ids = AutoTokenizer.from_pretrained(place.folder / "merged")("What is 3 and 3?", return_tensors="pt")
    with torch.no_grad():
        plain = base(**ids).logits
        expected = PeftModel.from_pretrained(base, place.folder / "adapter")(**ids).logits
        found = whole(**ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert (expected - plain).abs().max() > 0.1  # the adapter does something
    assert made["model"] and made["state"] == "complete"


def test_a_second_merge_finds_all_complete(place: Place) -> None:
    first = place.slipway("merge", "adapter")
    logs, began = place.logs(first["run"]), time.monotonic()
    again = place.slipway("merge", "adapter", "--base", "base", "--to", "merged")
    assert again["run"] == first["run"] and again["copy"] == str(place.folder / "merged")
    assert place.logs(first["run"]) == logs and time.monotonic() - began < 30


def test_answers_of_a_model_of_an_adapter_and_of_its_base(place: Place) -> None:
    beside = place.slipway("predict", "adapter", "--data", "test.jsonl", "--compare-base")
    assert set(beside["scores"]) == {"base", "tuned"}
    options = ("--data", "test.jsonl", "--max-new-tokens", "128")
    whole = place.slipway("predict", "merged", *options)
    assert set(whole["scores"]) == {"tuned"}
    assert [row["tuned"] for row in whole["answers"]] == [row["tuned"] for row in beside["answers"]]
    assert whole["scores"]["tuned"]["perplexity"] == pytest.approx(
        beside["scores"]["tuned"]["perplexity"], rel=1e-3
    )
    assert beside["scores"]["base"] != beside["scores"]["tuned"]
    logs = place.logs(whole["run"])
    assert place.slipway("predict", "merged", *options) == whole and place.logs(whole["run"]) == logs


def test_a_run_goes_on_where_a_command_left_it(place: Place) -> None:
    """The merged model of `slipway merge` answers without being merged, or named, again."""
    made = place.slipway("merge", "adapter")
    answered = place.slipway("predict", made["run"], "--data", "test.jsonl", "--no-compare-base")
    assert answered["model"] == made["model"]
    report = Path(answered["report"]).read_text()
    assert "Exact match" in report and "adapter" in report
