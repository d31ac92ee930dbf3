"""What is made of a trained model on the cluster: each stage a Job of its own, once the workers are gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.manifest import read_marker, verify
from artifacts.store import open_store
from launcher.kube import Kube
from tests.cluster.conftest import Place
from tests.cluster.runs import Run, write_job

pytestmark = pytest.mark.slow  # llama.cpp is compiled into an image of its own
RUN_S = 1200.0
AFTER = [StageKind.MERGE, StageKind.QUANTIZE, StageKind.GGUF, StageKind.PREDICT, StageKind.PUBLISH]


@pytest.fixture(scope="module")
def with_llama_cpp(make_place: Callable[..., Place], profile_values: dict[str, Any]) -> Place:
    place = make_place(image={**profile_values["image"], "gguf": True})
    place.slipway("image", "build", timeout_s=1800)
    return place


@pytest.fixture(scope="module")
def published(settings: dict[str, str], namespace: str) -> str:
    """Where the products go: another place than the store, of the same account."""
    return f"{settings['SLIPWAY_TEST_STORE']}-published/{namespace}"


@pytest.fixture(scope="module")
def run(with_llama_cpp: Place, published: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    job = write_job(
        tmp_path_factory.mktemp("products"),
        "products",
        model={"twin": {"hidden_size": 256, "intermediate_size": 512}},
        after=[kind.value for kind in AFTER],
        quantize={"calibration_sequences": 8, "max_perplexity_increase": 10.0},
        gguf={"types": ["f16", "q4_k_m"]},
        publish=published,
    )
    ended = json.loads(with_llama_cpp.slipway("submit", str(job), "--json", timeout_s=RUN_S))
    assert ended["state"] == "complete"
    return Run(with_llama_cpp.store, ended["run"])


def test_every_product_is_whole(run: Run) -> None:
    for kind in AFTER:
        assert verify(run.store, run.plan.stage(kind).output) == [], kind
    facts = {kind: read_marker(run.store, run.plan.stage(kind).output).facts for kind in AFTER}
    assert facts[StageKind.MERGE]["drift"] <= 0.05
    assert facts[StageKind.QUANTIZE]["perplexity_after"] > 0
    assert facts[StageKind.GGUF]["same_tokens"]


def test_products_are_made_when_the_workers_are_gone(run: Run, kube: Kube) -> None:
    trained = run.events("train", "finished")[-1]["time_s"]
    for kind in AFTER:
        assert run.events(kind.value, "started")[0]["time_s"] >= trained
    assert kube.list("RayCluster") == []


def test_the_publication_verifies(run: Run, published: str) -> None:
    address, _, prefix = published.rpartition("/")
    there = open_store(address)
    assert verify(there, prefix) == []
    names = {info.key.removeprefix(f"{prefix}/") for info in there.list(prefix)}
    assert {"README.md", "config.json"} <= names
    assert any(name.endswith(".gguf") for name in names)


def test_a_folder_of_this_machine_is_quantized_there(run: Run, with_llama_cpp: Place, tmp_path: Path) -> None:
    """What Slipway did not make is uploaded, as a job's model folder is."""
    folder = tmp_path / "model"
    with_llama_cpp.slipway("fetch", run.run_id, "merged", "--to", str(folder))
    data = Path(__file__).parents[2] / "examples/quickstart/train.jsonl"
    made = with_llama_cpp.json(
        "quantize", str(folder), "--data", str(data), "--bits", "8", "--max-perplexity-increase", "10",
        timeout_s=RUN_S,
    )  # fmt: skip
    quantized = Run(run.store, made["run"])
    assert verify(run.store, quantized.plan.stage(StageKind.QUANTIZE).output) == []
