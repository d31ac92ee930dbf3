"""docs/job-reference.md and docs/cluster-reference.md, written from the declarations.

`python -m launcher.spec.reference` rewrites them; a test compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.networks import NETWORKS, Network
from launcher.spec.schema import job_schema, kubernetes_cluster_schema, local_cluster_schema
from launcher.spec.starter import starter_job

DOCS = Path(__file__).resolve().parents[2] / "docs"

_NOTICE = "<!-- Written by `python -m launcher.spec.reference` from launcher/spec: change it there. -->"

_JOB_INTRODUCTION = f"""\
A job is one YAML file. `slipway init` writes this one to start from:

```yaml
{starter_job("support-bot").rstrip()}
```

- YAML 1.2: `no` and `yes` are text, `1e-5` is a number. Keys may not repeat; anchors, aliases, merge keys and
  tags are refused; at most 1 MiB, 20,000 values and 32 levels.
- A key without a value (`schedule:`) counts as left out.
- Relative paths start at the folder of the job file, `~` is the home folder. A symlink below that folder may
  not lead out of it.
- `--set training.learning_rate=2e-4` gives a field on the command line, with the same checks. The value is
  YAML: `--set method='{{type: lora, rank: 8}}'`, `--set 'data.train=[a.jsonl, b.jsonl]'`, and nothing at all
  (`--set training.epochs=`) to leave out what the file says.
- What looks like a token or password is refused everywhere: secrets come from environment variables.
- Editors check as you type with `slipway schema job > job.schema.json` and the first line
  `# yaml-language-server: $schema=job.schema.json`.
"""

_CLUSTER_INTRODUCTION = """\
A cluster profile is one YAML file in `clusters/`; its name is the file's. `slipway submit JOB --cluster NAME`
looks in `clusters/` of the working directory, then of the repository; a path works too. Without `--cluster`
the environment variable `SLIPWAY_CLUSTER` names it, else it is `local`. `slipway clusters` lists them. Its
`backend` says which of the two kinds it is: [this machine](#this-machine) or
[a Kubernetes cluster](#a-kubernetes-cluster).

Editors check as you type with `slipway schema cluster > cluster.schema.json`.
"""

_LOCAL_INTRODUCTION = """\
```yaml
# clusters/bigdisk.yaml: this machine, with the artifacts where there is room for them
backend: local
store: /mnt/big/slipway
```
"""

_KUBERNETES_INTRODUCTION = """\
The least that a profile says; [clusters/example-prod.yaml](../clusters/example-prod.yaml) explains every line
of a longer one:

```yaml
# clusters/lab.yaml
backend: kubernetes
store: s3://lab-artifacts/slipway
image: {registry: registry.example.com/ml}
nodes: {gpu: A100-80GB, gpus_per_node: 8, cpus: 90, memory: 1000Gi}
```

Secrets are named, never written here: `s3.secret`, `secrets` and `image.pull_secrets` name Secrets in the
namespace. What looks like a token is refused everywhere in the file, and so is a variable in `environment`
whose name says that it is a secret.

### Gang schedulers

With Kueue, `queue.kueue` names the LocalQueue. Other schedulers that admit all pods of a job together are
reached by `labels` and `queue.scheduler_name`; KubeRay passes the labels on where its operator was installed
with `batchScheduler.name` set to the scheduler's name.

```yaml
# Volcano: a queue, and all pods or none (KubeRay makes the PodGroup)
backend: kubernetes
store: s3://lab-artifacts/slipway
image: {registry: registry.example.com/ml}
nodes: {gpu: A100-80GB, gpus_per_node: 8, cpus: 90, memory: 1000Gi}
queue: {scheduler_name: volcano}
labels: {volcano.sh/queue-name: research}
```

```yaml
# Apache YuniKorn: one application per job, in a queue
backend: kubernetes
store: s3://lab-artifacts/slipway
image: {registry: registry.example.com/ml}
nodes: {gpu: A100-80GB, gpus_per_node: 8, cpus: 90, memory: 1000Gi}
queue: {scheduler_name: yunikorn}
labels: {ray.io/gang-scheduling-enabled: "true", yunikorn.apache.org/queue: root.research}
```

```yaml
# NVIDIA KAI
backend: kubernetes
store: s3://lab-artifacts/slipway
image: {registry: registry.example.com/ml}
nodes: {gpu: A100-80GB, gpus_per_node: 8, cpus: 90, memory: 1000Gi}
queue: {scheduler_name: kai-scheduler}
labels: {kai.scheduler/queue: research}
```
"""


def job_reference() -> str:
    return _page("Job reference", _JOB_INTRODUCTION, "## The job", *_tables(job_schema()))


def cluster_reference() -> str:
    return _page(
        "Cluster reference",
        _CLUSTER_INTRODUCTION,
        "## This machine",
        _LOCAL_INTRODUCTION.rstrip(),
        *_tables(local_cluster_schema()),
        "## A Kubernetes cluster",
        _KUBERNETES_INTRODUCTION.rstrip(),
        *_tables(kubernetes_cluster_schema()),
        "## Network presets",
        "What `nodes.network` sets; `nodes.nccl` adds variables, `nodes.network_resource` names another one.",
        _networks(),
    )


def _networks() -> str:
    rows = ["| preset | what | resources of a node | variables | source |", "|---|---|---|---|---|"]
    for network in NETWORKS.values():
        variables = ", ".join(f"`{name}={value}`" for name, value in network.variables.items())
        what = f"{network.what}; the image must have {network.needs}" if network.needs else network.what
        cells = (f"`{network.name}`", what, _resources(network), variables, network.source)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _resources(network: Network) -> str:
    if not network.resource:
        return ""
    number = "`network_devices`" if network.devices is None else str(network.devices)
    extras = [f"{amount} `{name}`" for name, amount in network.extras.items()]
    return ", ".join([f"{number} × `{network.resource}`", *extras])


def write(folder: Path = DOCS) -> None:
    (folder / "job-reference.md").write_text(job_reference())
    (folder / "cluster-reference.md").write_text(cluster_reference())


def _page(title: str, introduction: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _NOTICE, introduction.rstrip(), *parts]) + "\n"


def _tables(schema: dict[str, Any]) -> Iterator[str]:
    """The fields of a file, then each section's heading, description and fields, before its own sections."""
    homes = _homes(schema)
    yield _table(schema, homes)
    for name, path in homes.items():
        definition = schema["$defs"][name]
        yield from (f"## `{path}`", definition["description"].replace("\n", " "), _table(definition, homes))


def _homes(schema: dict[str, Any]) -> dict[str, str]:
    """Definitions of sections -> the path where each is used first, in the order of a reader."""
    homes: dict[str, str] = {}

    def walk(section: dict[str, Any], prefix: str) -> None:
        for name, field in section["properties"].items():
            inner = _section_of(field)
            if inner is not None and inner not in homes:
                homes[inner] = f"{prefix}{name}.NAME" if _is_mapping(field) else f"{prefix}{name}"
                walk(schema["$defs"][inner], f"{homes[inner]}.")

    walk(schema, "")
    return homes


def _table(section: dict[str, Any], homes: dict[str, str]) -> str:
    rows = ["| field | value | left out | what it does |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        what, _, left_out = field["description"].partition(" Left out: ")
        default = "**required**" if name in section.get("required", ()) else _default(field) or left_out
        cells = (f"`{name}`", _type(field, homes), default.removesuffix("."), what)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    default = field["default"]
    if default == []:
        return ""
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _branches(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [branch for branch in field.get("anyOf", [field]) if branch.get("type") != "null"]


def _is_mapping(field: dict[str, Any]) -> bool:
    """Whether its keys are the user's own."""
    return any("additionalProperties" in branch for branch in _branches(field))


def _section_of(field: dict[str, Any]) -> str | None:
    """The section that the field is, or that the values of a mapping are."""
    branches = _branches(field)
    inner = [branch.get("additionalProperties") for branch in branches]
    found = [*branches, *(branch for branch in inner if isinstance(branch, dict))]
    return next((branch["$ref"].rsplit("/", 1)[1] for branch in found if "$ref" in branch), None)


def _type(field: dict[str, Any], homes: dict[str, str]) -> str:
    """The kinds of values a field takes: choices with commas, the rest with `or`."""
    kinds = [_kind(branch, homes) for branch in _branches(field)]
    return (", " if all(kind.startswith("`") for kind in kinds) else " or ").join(kinds)


def _kind(branch: dict[str, Any], homes: dict[str, str]) -> str:
    if "$ref" in branch:
        anchor = homes[branch["$ref"].rsplit("/", 1)[1]].replace(".", "").lower()
        return f"[section](#{anchor})"
    if "enum" in branch:
        return ", ".join(f"`{choice}`" for choice in branch["enum"])
    if "const" in branch:
        return f"`{branch['const']}`"
    if branch["type"] == "array":
        return f"list of {_type(branch['items'], homes)}"
    if branch["type"] == "object":
        inner = branch.get("additionalProperties")
        return f"mapping of {_type(inner, homes)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "boolean": "`true`, `false`", "integer": "whole number", "number": "number"}
    return words[branch["type"]] + _bounds(branch)


def _bounds(branch: dict[str, Any]) -> str:
    if "minimum" in branch and "maximum" in branch:
        return f", {branch['minimum']:,} to {branch['maximum']:,}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {branch[key]:,g}" for key, sign in signs.items() if key in branch]
    return f" {', '.join(bounds)}" if bounds else ""


if __name__ == "__main__":
    write()
