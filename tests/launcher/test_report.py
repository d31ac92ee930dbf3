"""The report of whole and partial runs, read back as HTML."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from artifacts.local import LocalStore
from artifacts.manifest import read_marker, write_marker
from artifacts.store import ObjectMissingError
from launcher import report
from launcher.reporting.collect import collect
from launcher.reporting.products import figures, one_line
from tests.launcher.synthetic_run import HOSTILE, RUN_ID, make_plan, write_run

FETCHING = {"src", "href", "srcset", "action", "data", "poster"}


class Page(HTMLParser):
    """Elements by tag, visible text, and whether every element that was opened was closed again."""

    _VOID = frozenset({"meta", "input", "br", "link", "img", "line", "circle", "rect", "polyline"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def count(self, tag: str, name: str) -> int:
        return sum(
            found == tag and name in (attrs.get("class") or "").split() for found, attrs in self.elements
        )


def page(store: LocalStore) -> Page:
    key = report.write(store, RUN_ID)
    assert key == f"runs/{RUN_ID}/report.html"
    found = Page(store.read_bytes(key).decode())
    assert found.open == []
    return found


def test_whole_run(tmp_path: Path) -> None:
    found = page(write_run(tmp_path))
    assert "Complete" in found.text
    assert "Exact match 83.3%+83.3" in found.text
    assert "before training 11.2" in found.text
    assert found.count("svg", "chart") == 5  # loss, throughput, learning rate, gradient norm, token lengths
    assert found.count("article", "answer") == 24
    assert "Now right 20" in found.text
    assert "Still wrong 4" in found.text
    assert "global batch of 16 sequences = 2 workers × 4 per worker × 2" in found.text
    assert "31,104" in found.text  # training tokens
    assert "output is empty" in found.text  # a bad record
    assert "warmup_steps" not in found.text  # unset in the job
    assert make_plan(LocalStore(tmp_path)).digest in found.text


def test_every_artifact_is_named_with_its_digest(tmp_path: Path) -> None:
    store = write_run(tmp_path)
    text = page(store).text
    for stage in make_plan(store).stages:
        manifest = read_marker(store, stage.output)
        assert manifest is not None
        assert stage.output in text
        assert manifest.content_digest in text
        assert all(entry.sha256 in text for entry in manifest.files)


def test_nothing_is_fetched_and_only_the_own_script_may_run(tmp_path: Path) -> None:
    found = page(write_run(tmp_path))
    assert not [(tag, attrs) for tag, attrs in found.elements if tag != "a" and FETCHING & set(attrs)]
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
    policy = next(attrs["content"] for tag, attrs in found.elements if attrs.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_text_of_the_data_is_escaped(tmp_path: Path) -> None:
    store = write_run(tmp_path)
    found = page(store)
    assert HOSTILE in found.text  # as text, where a person reads it
    assert HOSTILE not in store.read_bytes(f"runs/{RUN_ID}/report.html").decode()


def test_differences_are_marked(tmp_path: Path) -> None:
    store = write_run(tmp_path)
    page(store)
    html = store.read_bytes(f"runs/{RUN_ID}/report.html").decode()
    assert "opens at 6 in the <mark>evening</mark>, every day" in html


_STAGES = [stage.kind for stage in make_plan(LocalStore(Path("none"))).stages]


@pytest.mark.parametrize("until", _STAGES)
@pytest.mark.parametrize("ending", ["failed", "drained"])
def test_a_run_that_ended_early(tmp_path: Path, until: StageKind, ending: str) -> None:
    found = page(write_run(tmp_path, until=until, ending=ending))
    if ending == "failed":
        assert f"Failed in {until.value}" in found.text
        assert "rank 1 ran out of memory" in found.text
        assert "lower training.micro_batch_size" in found.text
    else:
        assert "Stopped on request" in found.text
        assert f"slipway resume {RUN_ID}" in found.text
    assert found.count("article", "answer") == 0
    assert ("not reached" in found.text) == (until != StageKind.PREDICT)


def test_a_run_without_test_data(tmp_path: Path) -> None:
    found = page(write_run(tmp_path, predict=False, until=StageKind.MERGE))
    assert "Complete" in found.text
    assert found.count("div", "score") == 0


def test_what_was_made_of_the_model(tmp_path: Path) -> None:
    found = page(write_run(tmp_path, products=True, until=StageKind.PUBLISH))
    assert "Drift 3.1e-6 of the logits' deviation, from base and adapter; the bound is 0.05" in found.text
    assert "Same token 99.8 % positions" in found.text
    assert "Perplexity 1.302 → 1.348 +3.5%; the bound is +25%" in found.text
    assert "Size 2.62 MB → 930 kB weights, 35%" in found.text
    assert "q4_k_m 870 kB harbour-bot-q4_k_m.gguf" in found.text
    assert "Same tokens yes" in found.text
    assert "Same answers (q4_k_m) 90%" in found.text
    links = [attrs for tag, attrs in found.elements if tag == "a"]
    assert [link["href"] for link in links] == ["https://huggingface.co/harbour/bot"]


def test_products_in_a_line_each(tmp_path: Path) -> None:
    """As `slipway status` shows them."""
    store = write_run(tmp_path, products=True, until=StageKind.PUBLISH)
    plan = make_plan(store, products=True)
    manifests = collect(store, RUN_ID).manifests
    lines = [one_line(figures(plan, manifests), stage.kind) for stage in plan.stages]
    assert [line for line in lines if line] == [
        "size 49 B, drift 3.1e-6, same token 99.8 %",
        "bits 4, size 2.62 MB → 930 kB, perplexity 1.302 → 1.348",
        "f16 2.65 MB, q4_k_m 870 kB, same tokens yes, same answers (f16) 100%, same answers (q4_k_m) 90%",
    ]


def test_a_product_without_figures_and_an_address_that_is_no_link(tmp_path: Path) -> None:
    """Older runs say less; and only https is a link."""
    store = write_run(tmp_path, products=True, until=StageKind.PUBLISH)
    facts = {"quantize": {}, "gguf": {"same_answers": None}, "publish": {"address": "javascript:alert(1)"}}
    for stage in make_plan(store, products=True).stages:
        if stage.kind.value in facts:
            marker = read_marker(store, stage.output)
            assert marker is not None
            marker = dataclasses.replace(marker, facts=facts[stage.kind.value])
            write_marker(store, stage.output, marker)
    found = page(store)
    assert "Bits 4 groups of 128" in found.text
    assert "Same answers" not in found.text
    assert not [tag for tag, _ in found.elements if tag == "a"]


def test_a_resumed_run_shows_both_attempts_and_the_pause(tmp_path: Path) -> None:
    found = page(write_run(tmp_path, resumed=True))
    assert found.count("i", "interrupted") == 1
    assert "a dashed line stands for a pause" in found.text


def test_a_run_that_has_only_a_plan(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes(f"runs/{RUN_ID}/plan.json", make_plan(store).to_json())
    assert "Not finished" in page(store).text


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError):
        report.write(LocalStore(tmp_path), "none-00000000")


def test_the_resolved_job_on_the_page_is_a_job_file(tmp_path: Path) -> None:
    from launcher.reporting.provenance import job_text
    from launcher.spec.load import load_job

    job = make_plan(LocalStore(tmp_path)).job
    for name in ("train", "eval", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "job.yaml").write_text(job_text(job))
    assert (tmp_path / "job.yaml").read_text().startswith("name: harbour-bot\nmodel:\n  twin:\n")
    loaded = load_job(tmp_path / "job.yaml", []).value
    assert loaded.training.learning_rate == job["training"]["learning_rate"]
    assert loaded.training.warmup_steps is None
