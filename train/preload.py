"""Imports that every rank needs, done once in a process that ranks are then forked from."""

from __future__ import annotations

import os


def preload() -> None:
    from train import build_ops

    build_ops.prepare()
    import accelerate.utils
    import deepspeed
    import peft
    import torch.distributed.fsdp
    import torch.distributed.tensor
    import transformers

    import train.loop
    import train.trainer


def threads() -> int:
    return len(os.listdir("/proc/self/task"))
