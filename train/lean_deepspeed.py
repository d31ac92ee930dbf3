"""DeepSpeed without what a training never uses. It compiles nothing then, and starts 7 s earlier."""

from __future__ import annotations

import importlib


def prepare() -> None:
    """Call before the first use of deepspeed; calling again does nothing more."""
    _import_uncompiled("deepspeed.runtime.zero.muon.original_muon")
    # A shared-memory all-reduce for inference on CPUs, compiled in C++ whenever a process group starts.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None


def _import_uncompiled(module: str) -> None:
    """Import a module whose functions are decorated with `torch.compile`, as plain functions: the decorator
    sets the compiler up (6 s), and DeepSpeed imports its Muon optimizer only to compare types."""
    import torch

    compile_function = torch.compile
    torch.compile = lambda function=None, **_: function if function is not None else lambda given: given
    try:
        importlib.import_module(module)
    finally:
        torch.compile = compile_function
