"""From a `Source` to the engine that answers for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from artifacts.contract import Precision
from train.talk.engine import Engine, Source

_PATHS = ("folder", "adapter", "gguf", "tokenizer")


def source_from_json(text: str | bytes) -> Source:
    """What `launcher.models` writes: an object with `Source`'s fields. Raises ValueError or TypeError."""
    fields = json.loads(text)
    paths = {name: Path(fields[name]) for name in _PATHS if fields.get(name) is not None}
    source = Source(**{**fields, **dict.fromkeys(_PATHS), **paths})
    if (source.folder is None) == (source.gguf is None):
        raise ValueError("a source has either a folder or a gguf")
    return source


def open_engine(
    source: Source, *, device: str | None = None, precision: Precision | Literal["auto"] = "auto"
) -> Engine:
    """Load the model; takes as long as reading it. `device`: `cpu`, `cuda:0`; None: a GPU where there is one.
    `precision`: auto is bf16 where the device computes fast in it, else fp32; a GGUF file has its own. Raises
    StageUserError for what can't be loaded."""
    if source.gguf is not None:
        from train.talk.llama_engine import LlamaEngine

        return LlamaEngine(source, source.gguf, device)
    from train.talk.transformers_engine import TransformersEngine

    return TransformersEngine(source, device, precision)
