"""Stage `merge`: base model + adapter -> one model folder, which is held against the two before it counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from artifacts.contract import MergeParams, ModelParams
from artifacts.manifest import ArtifactWriter, Manifest, files_folder
from train.merging import layout
from train.merging.adapter import has_adapter, read_adapter, read_config
from train.merging.tensors import model_tensors
from train.merging.writing import write_merged
from train.stage import StageContext, StageUserError, fetch_progress

_COMMIT = re.compile(r"[0-9a-f]{40}")


def run(context: StageContext) -> None:
    """Write `merged/<key>/`. Raises StageUserError for what can't be merged."""
    params: MergeParams = context.stage.params
    base = context.input_folder("model")
    trained = context.input_folder("train")
    config = _read_config(base)
    if config.get("quantization_config"):
        raise StageUserError(
            "an adapter can't be merged into a quantized base model",
            "name the model that it was made of (merge.original)",
        )
    weights = model_tensors(base)
    if has_adapter(trained):
        _check_revision(read_config(trained), _base_params(context))
        tensors, untied = layout.with_adapter(weights, read_adapter(trained))
    else:
        grown = layout.has_more_layers(_read_config(trained), config)
        tensors, untied = layout.full_weights(weights, model_tensors(trained), may_add=grown), False
    writer = ArtifactWriter(context.store, context.stage.output)
    facts = write_merged(
        writer,
        base,
        tensors,
        params,
        trained=trained,
        untied=untied,
        vocabulary=layout.vocabulary(weights, tensors),
        progress=context.events.progress,
    )
    if has_adapter(trained):
        facts |= drift_facts(context, writer, base, trained)
    writer.commit(**facts)


def drift_facts(context: StageContext, writer: ArtifactWriter, base: Path, trained: Path) -> dict[str, float]:
    """Measured and, in bounds, for the marker. Raises StageError."""
    from train.merging import drift

    written = Manifest(files=sorted(writer.entries.values()))
    merged = files_folder(context.store, writer.prefix, written, progress=fetch_progress(context.events))
    found = drift.measure(base, trained, merged, trust_remote_code=_base_params(context).trust_remote_code)
    drift.check(found, context.stage.params.max_drift)
    return {"drift": float(f"{found.share:.3g}"), "same_top_token": round(found.same_top, 4)}


def _base_params(context: StageContext) -> ModelParams:
    """Of the model that is merged into."""
    output = context.stage.inputs["model"]
    params: ModelParams = next(stage.params for stage in context.plan.stages if stage.output == output)
    return params


def _check_revision(adapter: dict[str, Any], base: ModelParams) -> None:
    """Raises StageUserError for an adapter that says it was trained on another revision of this base."""
    named, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    if base.source != "hub" or named != base.location or not isinstance(revision, str):
        return
    if _COMMIT.fullmatch(revision) and revision != base.revision:
        raise StageUserError(
            f"the adapter was trained on {named} at revision {revision}, the base is at {base.revision}",
            "merge it with the revision that it was trained on",
        )


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json; empty where training wrote weights alone."""
    file = folder / "config.json"
    return json.loads(file.read_bytes()) if file.is_file() else {}
