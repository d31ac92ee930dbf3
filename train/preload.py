"""Imports that every rank needs, done once in a process that ranks are then forked from."""

from __future__ import annotations

import gc
import importlib

MODULES = (
    "accelerate.utils",
    "deepspeed",
    "peft",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.distributed.checkpoint",
    "train.loop",
    "train.trainer",
    "train.data.reader",
)


def preload() -> None:
    """Import what a training rank may need, whatever its strategy and method.

    Starts no threads, provided that OPENBLAS_NUM_THREADS=1 and JE_ARROW_MALLOC_CONF=background_thread:false
    are set before numpy and pyarrow are imported; so forking afterwards is safe.
    """
    from train import lean_deepspeed, lean_peft
    from train.processes import own_progress_lock

    lean_peft.prepare()
    lean_deepspeed.prepare()
    own_progress_lock()
    for module in MODULES:
        importlib.import_module(module)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # compiles 900 regular expressions, once
    gc.collect()
    gc.freeze()  # forked ranks share these pages, and their collections pass over them
