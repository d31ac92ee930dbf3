"""What a card says, and what it must not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from artifacts.contract import DataFile, Plan, PublishParams, StageKind
from launcher.publishing import card, curves, licence, products
from launcher.publishing.licence import Licence
from launcher.publishing.products import PublishedFile
from launcher.publishing.target import parse
from launcher.reporting.collect import RunFacts, collect
from tests.launcher.plans import assert_golden
from tests.launcher.publishing import runs
from tests.launcher.publishing.test_writing import HOSTILE
from tests.launcher.synthetic_run import RUN_ID

APACHE = Licence({"license": "apache-2.0"}, "As the publisher states.")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFacts, Any, Plan]:
    store, plan = runs.make(tmp_path_factory.mktemp("card") / "store")
    return collect(store, RUN_ID), store, plan


def render(
    made: tuple[RunFacts, Any, Plan], names: list[Any], to: str = "hub://org/bot", stated: Licence = APACHE
) -> str:
    facts, store, plan = made
    plan = facts.plan
    stage = plan.stage(StageKind.PUBLISH)
    params: PublishParams = dataclasses.replace(stage.params, products=names, to=to)
    stage = dataclasses.replace(stage, params=params)
    wanted = products.manifests(made[2].stage(StageKind.PUBLISH), names, store)
    where = products.folders(names)
    files = [
        PublishedFile(path=where[name] + entry.path, size_bytes=entry.size_bytes, sha256=entry.sha256)
        for name in names
        for entry in wanted[name].files
    ]
    return card.render(facts, stage, wanted, stated, files, parse(to), has_curves=True)


def with_plan(facts: RunFacts, kind: StageKind, **changes: Any) -> RunFacts:
    """The facts with other parameters of one stage."""
    stages = [
        dataclasses.replace(stage, params=dataclasses.replace(stage.params, **changes))
        if stage.kind == kind
        else stage
        for stage in facts.plan.stages
    ]
    return dataclasses.replace(facts, plan=dataclasses.replace(facts.plan, stages=stages))


def test_the_whole_card(made: tuple[RunFacts, Any, Plan]) -> None:
    text = render(made, ["model", "adapter", "quantized", "gguf"])
    text = text.replace(made[0].plan.digest, "0" * 64)  # of a plan with the test's own folder
    before, checks, after = re.split(r"(?s)(## Checks\n.*?)(?=## Training)", text)
    assert "| merged model | Drift | 0.0012 |" in checks  # in the report's words
    assert_golden("card.md", before + after)


@pytest.mark.parametrize("to", ["hub://org/bot", "s3://acme-bucket/bots/harbour"])
def test_it_names_no_place_and_no_person(made: tuple[RunFacts, Any, Plan], to: str) -> None:
    text = render(made, ["model", "adapter", "quantized", "gguf"], to)
    for word in (*runs.SECRETS, "/tmp", "acme", "file://", "s3://", "tracker"):
        assert word not in text, word
    assert "harbour office" not in text  # of a record


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model", "gguf"], {"base_model_relation": "finetune", "library_name": "transformers"}),
        (["adapter"], {"base_model_relation": "adapter", "library_name": "peft"}),
        (["quantized"], {"base_model_relation": "quantized", "library_name": "transformers"}),
        (["gguf"], {"base_model_relation": "quantized"}),
    ],
)
def test_front_matter(made: tuple[RunFacts, Any, Plan], names: list[Any], expected: dict[str, str]) -> None:
    found = licence.front_matter(render(made, names))
    assert found.items() >= {**expected, "base_model": "team/base", "license": "apache-2.0"}.items()
    assert ("library_name" in found) == ("library_name" in expected)
    assert found["tags"][:2] == ["slipway", "lora"] and ("gguf" in found["tags"]) == ("gguf" in names)
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert {"type": "exact_match", "name": "Exact match", "value": 83.33} in result["metrics"]


def test_the_hubs_own_client_reads_the_metadata(made: tuple[RunFacts, Any, Plan]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(render(made, ["model"])).data
    assert data.base_model == "team/base" and data.license == "apache-2.0"
    assert {result.metric_type for result in data.eval_results} == {"exact_match", "bleu", "rouge"}


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.isascii() or name.isprintable()])
def test_hostile_names_form_no_metadata(made: tuple[RunFacts, Any, Plan], name: str) -> None:
    facts, store, plan = made
    file = DataFile(path=f"/x/{name}", size_bytes=1, sha256="ab" * 32, format="auto")
    hostile = with_plan(facts, StageKind.DATA, splits={"train": [file]})
    hostile = with_plan(hostile, StageKind.TRAIN, accelerator=name)
    hostile = dataclasses.replace(hostile, plan=dataclasses.replace(hostile.plan, name=name))
    text = render((hostile, store, plan), ["model"])
    found = licence.front_matter(text)
    assert found["license"] == "apache-2.0" and found["base_model"] == "team/base"
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [line for line in render(made, ["model"]).splitlines() if line.startswith("## ")]


def test_a_base_model_that_is_not_on_a_hub_is_known_by_its_digest(made: tuple[RunFacts, Any, Plan]) -> None:
    facts, store, plan = made
    params = {"source": "folder", "location": "/home/ada/base", "sha256": "d" * 64, "revision": None}
    text = render((with_plan(facts, StageKind.MODEL, **params), store, plan), ["adapter"])
    assert "d" * 64 in text and "/home" not in text
    assert "base_model" not in licence.front_matter(text)
    assert 'from_pretrained("path/to/the/base/model"' in text


def test_an_unknown_licence_is_left_out_and_said(made: tuple[RunFacts, Any, Plan]) -> None:
    text = render(made, ["model"], stated=Licence({}, "None is stated here."))
    assert "license" not in licence.front_matter(text) and "None is stated here." in text


def test_data_sets_of_the_hub_are_named(made: tuple[RunFacts, Any, Plan]) -> None:
    facts, store, plan = made
    path = f"hub://datasets/org/chats@{'a' * 40}/data/train.parquet"
    file = DataFile(path=path, size_bytes=0, sha256="ab" * 32, format="auto")
    text = render((with_plan(facts, StageKind.DATA, splits={"train": [file]}), store, plan), ["model"])
    assert licence.front_matter(text)["datasets"] == ["org/chats"]


def test_snippets_name_where_files_lie(made: tuple[RunFacts, Any, Plan]) -> None:
    alone, beside = render(made, ["quantized"]), render(made, ["model", "quantized"])
    assert "vllm serve org/bot\n" in alone and "subfolder" not in alone
    assert "vllm serve harbour-bot/gptq" in beside and 'subfolder="gptq"' in beside
    gguf = render(made, ["gguf"])
    assert "hf download org/bot --local-dir harbour-bot" in gguf
    assert "llama-cli -m harbour-bot/harbour-bot-q4_k_m.gguf" in gguf and "cd harbour-bot\n" in gguf
    bucket = render(made, ["gguf"], "s3://acme-bucket/bots/harbour")
    assert "hf download" not in bucket and "path/to/harbour-bot/harbour-bot-q4_k_m.gguf" in bucket


def test_a_run_of_products_alone_has_a_card_too(made: tuple[RunFacts, Any, Plan]) -> None:
    """As `slipway quantize` leaves one: no training, no scores."""
    facts, store, plan = made
    kinds = (StageKind.DATA, StageKind.PREPARE, StageKind.QUANTIZE, StageKind.PUBLISH)
    kept = [stage for stage in facts.plan.stages if stage.kind in kinds]
    bare = dataclasses.replace(facts.plan, stages=kept, job={"name": "bot"})
    small = RunFacts(run_id="x", plan=bare, manifests={"quantize": facts.manifests["quantize"]})
    text = render((small, store, plan), ["quantized"])
    assert "## Data that calibrated or tested it" in text and "## Results" not in text
    assert "| GPTQ | Perplexity | 9.5 → 9.75 |" in text and "| Learnt |" not in text
    assert "A language model. Here:" in text


def test_licences_of_base_models(tmp_path: Path) -> None:
    found = licence.front_matter(
        "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\nx: 1\n---\n# A"
    )
    assert licence.licence_of(found) == {
        "license": "other",
        "license_name": "llama3",
        "license_link": "LICENSE",
    }
    assert licence.licence_of({"license": ["mit"]}) == {"license": "mit"}
    for odd in ({}, {"license": 7}, {"license": "MIT or so"}, {"license": ["a", "b"]}):
        assert licence.licence_of(odd) == {}
    for text in ("# no front matter", "---\n: [\n---\n", "---\n- a\n---\n", "---\nlicense: mit\n"):
        assert licence.front_matter(text) == {}


def test_the_licence_of_a_base_model_in_a_folder(tmp_path: Path) -> None:
    store, plan = runs.make(tmp_path / "store")
    params: PublishParams = plan.stage(StageKind.PUBLISH).params
    given = dataclasses.replace(params, license="apache-2.0")
    assert licence.find(plan, store, params, ask_hub=False).metadata == {}
    store.write_bytes(f"{plan.stage(StageKind.MODEL).output}/README.md", b"---\nlicense: mit\n---\n# Base\n")
    assert licence.find(plan, store, params, ask_hub=False).metadata == {"license": "mit"}
    assert licence.find(plan, store, given, ask_hub=False).metadata == {"license": "apache-2.0"}


def test_a_licences_own_text_is_linked_from_outside(tmp_path: Path) -> None:
    store, plan = runs.make(tmp_path / "store")
    model = plan.stage(StageKind.MODEL)
    params: PublishParams = plan.stage(StageKind.PUBLISH).params
    for link, told in (
        ("LICENSE", f"https://huggingface.co/team/base/blob/{'c' * 40}/LICENSE"),
        ("https://x.org/terms", "https://x.org/terms"),
        ("/home/ada/LICENSE", None),
    ):
        text = f"---\nlicense: other\nlicense_name: own\nlicense_link: {link}\n---\n"
        store.write_bytes(f"{model.output}/README.md", text.encode())
        found = licence.find(plan, store, params, ask_hub=False).metadata
        assert found.get("license_link") == told and found["license_name"] == "own"


def test_curves_stand_alone() -> None:
    steps = [{"step": step, "loss": 3 / step} for step in range(1, 200)]
    text = curves.draw(steps, [{"step": 50, "eval_loss": 1.0}, {"step": 100, "eval_loss": None}])
    assert text is not None and text == curves.draw(steps, [{"step": 50, "eval_loss": 1.0}])
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("width")
    assert not re.search(r"script|data-points|var\(|href|cursor", text)
    labels = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert labels[-2:] == ["training loss", "evaluation loss"]
    assert curves.draw([], []) is None
