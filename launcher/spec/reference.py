"""docs/job-reference.md and docs/cluster-reference.md, written from the declarations.

`python -m launcher.spec.reference` rewrites them; a test compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.spec.schema import cluster_schema, job_schema
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
the environment variable `SLIPWAY_CLUSTER` names it, else it is `local`. `slipway clusters` lists them.

```yaml
# clusters/bigdisk.yaml: this machine, with the artifacts where there is room for them
backend: local
store: /mnt/big/slipway
```

Editors check as you type with `slipway schema cluster > cluster.schema.json`.
"""


def job_reference() -> str:
    return _page("Job reference", _JOB_INTRODUCTION, job_schema(), "The job")


def cluster_reference() -> str:
    return _page("Cluster reference", _CLUSTER_INTRODUCTION, cluster_schema(), "The profile")


def write(folder: Path = DOCS) -> None:
    (folder / "job-reference.md").write_text(job_reference())
    (folder / "cluster-reference.md").write_text(cluster_reference())


def _page(title: str, introduction: str, schema: dict[str, Any], root: str) -> str:
    parts = [
        f"# {title}",
        _NOTICE,
        introduction.rstrip(),
        f"## {root}",
        _table(schema),
        *_sections(schema, schema),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(schema: dict[str, Any], section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Headings, descriptions and tables of the sections below `section`, each before its own sections."""
    for name, field in section["properties"].items():
        if (inner := _section_of(field)) is not None:
            definition, path = schema["$defs"][inner], f"{prefix}{name}"
            yield from (
                f"## `{path}`",
                definition["description"].replace("\n", " "),
                _table(definition, f"{path}."),
            )
            yield from _sections(schema, definition, f"{path}.")


def _table(section: dict[str, Any], prefix: str = "") -> str:
    rows = ["| field | value | left out | what it does |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        what, _, left_out = field["description"].partition(" Left out: ")
        default = "**required**" if name in section.get("required", ()) else _default(field) or left_out
        cells = (f"`{name}`", _type(field, f"{prefix}{name}"), default.removesuffix("."), what)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    default = field["default"]
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _branches(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [branch for branch in field.get("anyOf", [field]) if branch.get("type") != "null"]


def _section_of(field: dict[str, Any]) -> str | None:
    return next((branch["$ref"].rsplit("/", 1)[1] for branch in _branches(field) if "$ref" in branch), None)


def _type(field: dict[str, Any], path: str) -> str:
    """The kinds of values a field takes: choices with commas, the rest with `or`."""
    kinds = [_kind(branch, path) for branch in _branches(field)]
    return (", " if all(kind.startswith("`") for kind in kinds) else " or ").join(kinds)


def _kind(branch: dict[str, Any], path: str) -> str:
    if "$ref" in branch:
        return f"[section](#{path.replace('.', '')})"
    if "enum" in branch:
        return ", ".join(f"`{choice}`" for choice in branch["enum"])
    if "const" in branch:
        return f"`{branch['const']}`"
    if branch["type"] == "array":
        return f"list of {_type(branch['items'], path)}"
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
