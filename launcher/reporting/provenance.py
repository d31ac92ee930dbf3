"""What the page says of where the run came from: plan, inputs, artifacts with their digests, versions."""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
from typing import Any

from artifacts.contract import StageKind
from launcher.reporting import words
from launcher.reporting.collect import RunFacts
from launcher.reporting.data_view import split_order

Values = dict[str, Any]

_JOB_ORDER = (
    *(
        "command",
        "name",
        "model",
        "data",
        "template",
        "method",
        "training",
        "strategy",
        "attention",
        "compute",
        "engine",
    ),
    *("after", "merge", "quantize", "gguf", "predict", "publish"),
)
#: Stages that bring a model in, and what they bring.
MODELS = {
    StageKind.MODEL: "base model",
    StageKind.ORIGINAL: "unquantized model",
    StageKind.ADAPTER: "adapter",
}
_FILES_LISTED = 60
_PACKAGES = ("slipway", "torch", "transformers", "peft", "accelerate", "deepspeed", "ray", "tokenizers")


def derived(facts: RunFacts) -> list[Values]:
    return [
        {
            "field": row.field,
            "value": _value(row.field, row.value),
            "reason": row.reason,
        }
        for row in facts.plan.derived
    ]


def _value(field: str, value: Any) -> str:
    if field.startswith("memory.") and isinstance(value, int):
        return words.size(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def job_text(job: Values) -> str:
    """The job as YAML, in the order in which people write one, without what is unset."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = False
    ordered = {name: job[name] for name in (*_JOB_ORDER, *sorted(job)) if name in job}
    yaml.dump(_without_unset(ordered), text)
    return text.getvalue()


def _without_unset(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_unset(item) for key, item in value.items() if item is not None}
    return [_without_unset(item) for item in value] if isinstance(value, list) else value


def input_digests(facts: RunFacts) -> list[Values]:
    """What came from outside: data files, the revisions of models."""
    rows = []
    for stage in facts.plan.stages:
        if stage.kind == StageKind.DATA:
            rows += [
                {"what": f"{split} data", "name": file.path, "digest": f"sha256 {file.sha256}"}
                for split in sorted(stage.params.splits, key=split_order)
                for file in stage.params.splits[split]
            ]
        elif stage.kind in MODELS and stage.params.location:
            pin = stage.params.revision or stage.params.sha256
            row = {"what": MODELS[stage.kind], "name": stage.params.location, "digest": pin or ""}
            rows.append(row)
    return rows


def artifact_rows(facts: RunFacts) -> list[Values]:
    rows = []
    for stage in facts.plan.stages:
        manifest = facts.manifests.get(stage.kind.value)
        files = manifest.files if manifest else []
        rows.append(
            {
                "stage": stage.kind.value,
                "place": (manifest.location if manifest and manifest.location else stage.output),
                "size": words.size(manifest.size_bytes) if manifest else "–",
                "files": [
                    (file.path, words.size(file.size_bytes), file.sha256) for file in files[:_FILES_LISTED]
                ],
                "unlisted": max(0, len(files) - _FILES_LISTED),
                "digest": manifest.content_digest if manifest else "",
            }
        )
    return rows


def versions(facts: RunFacts) -> list[tuple[str, str]]:
    """As the training recorded them; else those installed beside the launcher."""
    train = facts.manifests.get("train")
    recorded = train.facts.get("versions") if train else None
    if isinstance(recorded, dict):
        return sorted((str(name), str(version)) for name, version in recorded.items())
    found = [("Python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
