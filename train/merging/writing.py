"""The merged model's files, made tensor by tensor.

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
from artifacts.manifest import ArtifactWriter
from train.merging import layout
from train.merging.companions import companions
from train.merging.layout import MergedTensor
from train.merging.tensors import INDEX_NAME, TORCH_DTYPES, Memory, encode_header

_WRITERS = 2


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


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
