from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema.protocols import Validator

from launcher.spec import reference
from launcher.spec.load import list_clusters, load_cluster, load_job
from launcher.spec.schema import (
    cluster_schema,
    job_schema,
    kubernetes_cluster_schema,
    local_cluster_schema,
)
from launcher.spec.starter import starter_job
from launcher.spec.yaml import parse, read_mapping

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
MINIMAL = "name: b\nmodel: {twin: {}}\ndata: {train: a.jsonl}\n"


@pytest.fixture(scope="module")
def job_validator() -> Validator:
    return _validator(job_schema())


def _validator(schema: dict[str, Any]) -> Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path: Path, job_validator: Validator) -> None:
    job_validator.validate(read_mapping(path).value)
    load_job(path)


@pytest.mark.parametrize("path", list_clusters().values(), ids=lambda path: path.name)
def test_profiles(path: Path) -> None:
    _validator(cluster_schema()).validate(read_mapping(path).value)


@pytest.mark.parametrize(
    "lines",
    [
        "method: full",
        "method: {type: lora, target_modules: [q_proj]}",
        "strategy: zero3",
        "strategy: {type: zero3, offload: params}",
        "training: {save_every: epoch, evaluate_every: 0.5, gradient_checkpointing: true}",
        "training:\ncompute: {memory: 64Gi, workers: }",
        "after: []",
    ],
)
def test_good_jobs(lines: str, job_validator: Validator, tmp_path: Path) -> None:
    job_validator.validate(parse(MINIMAL + lines, "f").value)
    (tmp_path / "job.yaml").write_text(MINIMAL + lines.replace("evaluate_every: 0.5, ", ""))
    load_job(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    "lines",
    ["method: lorra", "method: {typ: lora}", "training: {epochs: 0}", "foo: 1", "after: merge", "name: B"],
)
def test_bad_jobs(lines: str, job_validator: Validator) -> None:
    value = {**parse(MINIMAL, "f").value, **parse(lines, "f").value}
    assert not job_validator.is_valid(value)


@pytest.mark.parametrize(
    "text",
    [
        "backend: slurm",
        "backend: local\nnamespace: x",
        "backend: kubernetes\nstore: s3://bucket/x",
        "backend: kubernetes\nstore: /mnt/x\nimage: {registry: r.io}\nnodes: {cpus: 1, memory: 1Gi}",
        "backend: kubernetes\nstore: s3://bucket/x\nimage: {registry: r.io}\n"
        "nodes: {cpus: 1, memory: 1Gi, tolerations: [{effect: Never}]}",
    ],
)
def test_bad_profiles(text: str) -> None:
    assert not _validator(cluster_schema()).is_valid(parse(text, "f").value)


def test_the_backend_decides_whose_mistakes_an_editor_shows() -> None:
    value = parse("backend: kubernetes\nstore: s3://bucket/x\nimag: {}\n", "f").value
    said = {error.message for error in _validator(cluster_schema()).iter_errors(value)}
    assert said == {
        "'image' is a required property",
        "'nodes' is a required property",
        "Additional properties are not allowed ('imag' was unexpected)",
    }


def test_profiles_in_the_reference(tmp_path: Path) -> None:
    """Every example on the page can be used as it stands."""
    found = re.findall(r"```yaml\n(.*?)```", reference.cluster_reference(), re.S)
    assert len(found) == 5
    for text in found:
        _validator(cluster_schema()).validate(parse(text, "f").value)
        (tmp_path / "mine.yaml").write_text(text)
        load_cluster(tmp_path / "mine.yaml")


def test_the_example_profile_names_every_field() -> None:
    value = read_mapping(ROOT / "clusters/example-prod.yaml").value
    schema = kubernetes_cluster_schema()
    # One choice excludes the other.
    left_out = {"name", "scheduler_name", "host_path", "network_resource"}
    for name, field in schema["properties"].items():
        assert name in value
        definition = next(
            (branch["$ref"].rsplit("/", 1)[1] for branch in field.get("anyOf", [field]) if "$ref" in branch),
            None,
        )
        if definition is not None:
            assert set(schema["$defs"][definition]["properties"]) - left_out <= set(value[name])


def test_every_field_is_described() -> None:
    for schema in (job_schema(), local_cluster_schema(), kubernetes_cluster_schema()):
        for section in (schema, *schema.get("$defs", {}).values()):
            assert section["description"].endswith(".")
            for name, field in section["properties"].items():
                assert field.get("description", "").endswith("."), name


def test_starter_is_a_good_job(job_validator: Validator, tmp_path: Path) -> None:
    (tmp_path / "my-bot.yaml").write_text(starter_job("my-bot"))
    job_validator.validate(read_mapping(tmp_path / "my-bot.yaml").value)
    assert load_job(tmp_path / "my-bot.yaml").value.name == "my-bot"
    assert all(len(line) <= 110 for line in starter_job("support-bot").splitlines())


def test_starter_shows_fields_that_exist(job_validator: Validator, tmp_path: Path) -> None:
    """What is commented out becomes a good job too, one choice at a time."""
    text = starter_job("bot")
    choices = [
        "test: ",
        "on_error: ",
        "learning_rate: ",
        "global_batch_size: ",
        "max_length: ",
        "save_every: ",
    ]
    choices += ["strategy: ", "compute:", "  workers: ", "after: ", "eval: "]
    for choice in choices:
        assert text.count(f"# {choice}") == 1
        text = text.replace(f"# {choice}", choice)
    path = tmp_path / "bot.yaml"
    path.write_text(text)
    job_validator.validate(read_mapping(path).value)
    assert load_job(path).value.compute.workers == 2
    lora = text.replace("method: lora ", "# method: lora ")
    for line in ("method:\n", "  type: lora\n", "  rank: 16\n", "  alpha: 32 ", "  target_modules: "):
        assert f"# {line}" in lora
        lora = lora.replace(f"# {line}", line)
    path.write_text(lora)
    assert load_job(path).value.method.alpha == 32


def test_committed_references_are_up_to_date(tmp_path: Path) -> None:
    """`make docs` writes them anew."""
    reference.write(tmp_path)
    for name in ("job-reference.md", "cluster-reference.md"):
        assert (ROOT / "docs" / name).read_text() == (tmp_path / name).read_text()


def test_links_of_the_references_lead_somewhere() -> None:
    for text in (reference.job_reference(), reference.cluster_reference()):
        headings = {
            re.sub(r"[^a-z0-9_ -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        links = set(re.findall(r"\]\(#([^)]*)\)", text))
        assert links and links <= headings


def test_cluster_reference_names_every_field() -> None:
    text = reference.cluster_reference()
    for schema in (local_cluster_schema(), kubernetes_cluster_schema()):
        for section in (schema, *schema.get("$defs", {}).values()):
            for name in section["properties"]:
                assert f"\n| `{name}` |" in text


def test_reference_names_every_field_once() -> None:
    text = reference.job_reference()
    fields = [
        name for section in (job_schema(), *job_schema()["$defs"].values()) for name in section["properties"]
    ]
    for name in set(fields):
        assert text.count(f"\n| `{name}` |") == fields.count(name)
    headings = {line[3:].strip("`") for line in text.splitlines() if line.startswith("## ")}
    assert {"model", "model.twin", "training"} <= headings
