"""From a `Source` to the engine that answers for it."""

from __future__ import annotations

from typing import Literal

from artifacts.contract import Precision
from train.talk.engine import Engine, Source


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
