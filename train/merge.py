"""Stage `merge`: base model + adapter -> one model folder, tensor by tensor.

Each tensor is read from the base, changed, hashed and written as it passes, so the peak of memory is a few
tensors, not a model. Output files are made side by side by a few threads: while one waits for the disk, the
others compute and hash (reading, writing, hashing and torch's arithmetic all release the GIL).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from artifacts.contract import MergeParams
from artifacts.manifest import MARKER, ArtifactWriter, Manifest, files_folder
from train.merging import layout
from train.merging.adapter import has_adapter, read_adapter
from train.merging.layout import MergedTensor
from train.merging.tensors import INDEX_NAME, TORCH_DTYPES, Memory, encode_header, model_tensors
from train.stage import StageContext, StageUserError, fetch_progress

_WRITERS = 2
#: What a model folder holds beside its weights: configs, tokenizer, chat template, remote code.
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.tiktoken", "**/*.jinja", "**/*.py", "**/*.cu", "**/*.cpp")

#: What training writes beside a model or an adapter and the merged model has no use for.
_OF_TRAINING = ("adapter_config.json",)


def run(context: StageContext) -> None:
    """Write `merged/<key>/`. Raises StageUserError for what can't be merged."""
    params: MergeParams = context.stage.params
    base = context.input_folder("model")
    trained = context.input_folder("train")
    config = _read_config(base)
    if config.get("quantization_config"):
        raise StageUserError(
            "an adapter can't be merged into a quantized base model", "use the unquantized one"
        )
    weights = model_tensors(base)
    if has_adapter(trained):
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
    found = drift.measure(base, trained, merged, trust_remote_code=_trusts_code(context))
    drift.check(found, context.stage.params.max_drift)
    return {"drift": float(f"{found.share:.3g}"), "same_top_token": round(found.same_top, 4)}


def _trusts_code(context: StageContext) -> bool:
    """Whether the job trusts the code of the model that is merged into."""
    base = context.stage.inputs["model"]
    models = (stage.params for stage in context.plan.stages if stage.output == base)
    return any(params.trust_remote_code for params in models)


def write_merged(
    writer: ArtifactWriter,
    base: Path,
    tensors: Sequence[MergedTensor],
    params: MergeParams,
    *,
    trained: Path | None = None,
    untied: bool = False,
    vocabulary: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, unit: None,
) -> dict[str, Any]:
    """Write `tensors` and the files beside the weights; returns facts for the marker. The files are `base`'s,
    but those that lie in `trained` too: its tokenizer and, of a whole model, its configuration. `vocabulary`:
    how many tokens the model has now."""
    files = layout.shards(tensors, params.max_shard_size_bytes)
    progress(0, len(files), "shards")
    memory = Memory()
    with ThreadPoolExecutor(_WRITERS, "shard", initializer=_use_one_thread) as pool:
        writing = [pool.submit(_write_shard, writer, name, group, memory) for name, group in files.items()]
        try:
            for done, shard in enumerate(as_completed(writing), start=1):
                shard.result()
                progress(done, len(files), "shards")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if len(files) > 1:
        writer.write_bytes(INDEX_NAME, _json(layout.index(files)))
    for path, file in companions(base, trained).items():
        if path == "config.json":
            config = json.loads(file.read_bytes())
            changed = layout.merged_config(config, untied=untied, vocabulary=vocabulary)
            if changed != config:
                writer.write_bytes(path, _json(changed))
                continue
        writer.add_file(path, file)
    return {"parameters": sum(math.prod(tensor.shape) for tensor in tensors), "untied": untied}


def companions(base: Path, trained: Path | None = None) -> dict[str, Path]:
    """What the merged model takes over unchanged, by path in its folder."""
    files = {path: base / path for path in companion_files(base)}
    if trained is not None:
        files |= {path: trained / path for path in companion_files(trained) if path not in _OF_TRAINING}
    return files


def companion_files(folder: Path) -> list[str]:
    """Paths relative to `folder` of the files that lie beside a model's weights."""
    found = {path.relative_to(folder) for pattern in _COMPANIONS for path in folder.glob(pattern)}
    return sorted(
        path.as_posix()
        for path in found
        if not path.name.endswith(".index.json")
        and path.name != MARKER
        and not any(part.startswith(".") for part in path.parts)
    )


def _write_shard(writer: ArtifactWriter, name: str, tensors: Sequence[MergedTensor], memory: Memory) -> None:
    with writer.open(name) as stream:
        stream.write(encode_header((t.name, t.dtype, t.shape, t.size_bytes) for t in tensors))
        for tensor in tensors:
            if tensor.computed:
                stream.write(_computed_bytes(tensor, memory))
            else:
                for block in tensor.source.blocks():
                    stream.write(block)


def _computed_bytes(tensor: MergedTensor, memory: Memory) -> Any:
    import torch

    source = tensor.source
    with torch.inference_mode():
        weight = source.read(memory.take("weight", source.size_bytes))
        weight = weight.to(getattr(torch, TORCH_DTYPES[tensor.dtype]))
        if tensor.shape != source.shape:  # rows that the update writes
            added = weight.new_zeros(tensor.shape[0] - source.shape[0], *source.shape[1:])
            weight = torch.cat([weight, added])
        if tensor.update is not None:
            tensor.update.apply(weight, memory)
        return weight.reshape(-1).view(torch.uint8).numpy()


def _use_one_thread() -> None:
    """Each writer computes on one core; torch's own threads would only compete with the other writers."""
    import torch

    torch.set_num_threads(1)


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json; empty where training wrote weights alone."""
    file = folder / "config.json"
    return json.loads(file.read_bytes()) if file.is_file() else {}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
