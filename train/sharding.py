"""A model spread over several processes to answer questions, where no device holds it whole.

Weights are sharded layer by layer (FSDP2): each rank reads only its part of the files, and a layer is whole
only while it is computed. All ranks must then run equally many forward passes: `generate` goes on with them
until the last rank is done, and a rank without a batch of its own repeats another's and drops what comes out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from train.stage import StageError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """This process's place among those that hold one model together."""

    rank: int
    size: int
    port: int  # of rank 0, on this machine


@dataclass(frozen=True)
class Turn:
    """A batch that a rank computes; one that `is_filler` only keeps the others company."""

    batch: Sequence[int]
    is_filler: bool = False


def turns(batches: Sequence[Sequence[int]], rank: int, size: int) -> list[Turn]:
    """The batches of one rank of `size`, dealt in turn so that ranks compute similar lengths at one time.
    Every rank gets equally many."""
    rounds = math.ceil(len(batches) / size)
    dealt = [position * size + rank for position in range(rounds)]
    return [Turn(batches[at]) if at < len(batches) else Turn(batches[-1][-1:], True) for at in dealt]


def needed(weights_bytes: float, device_bytes: int, devices: int) -> int:
    """Over how many of the `devices` a model goes: one where it fits there, else the fewest that divide them
    all and hold it. Raises StageError where all together don't."""
    for size in (count for count in range(1, devices + 1) if devices % count == 0):
        if weights_bytes <= size * device_bytes:
            return size
    raise StageError(
        f"the model needs {weights_bytes / 1e9:.0f} GB to answer, and here are {devices} × "
        f"{device_bytes / 1e9:.0f} GB",
        "leave predict out of `after`, or run it where there is more memory",
    )


def join(shard: Shard, device: str) -> None:
    """Join the group of this model's processes."""
    import torch
    import torch.distributed as dist

    os.environ |= {
        "RANK": str(shard.rank),
        # by which transformers chooses the device
        "LOCAL_RANK": str(shard.rank) if device == "cpu" else device.removeprefix("cuda:"),
        "WORLD_SIZE": str(shard.size),
        "LOCAL_WORLD_SIZE": str(shard.size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(shard.port),
    }
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name need not resolve
    if device == "cpu":
        dist.init_process_group("gloo")
    else:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=torch.device(device))


def options(config: Any, size: int, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """Arguments of `from_pretrained` that spread a model of this configuration over `size` ranks."""
    from transformers.distributed import DistributedConfig

    return {
        "distributed_config": DistributedConfig(fsdp_size=size, fsdp_plan=plan(config, trust_remote_code))
    }


def plan(config: Any, trust_remote_code: bool) -> dict[str, str]:
    """Which modules are gathered and freed as one: transformers' own plan knows layers only by the name that
    most families give them."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    layers = set(model._no_split_modules or ())
    names = [name for name, module in model.named_modules() if type(module).__name__ in layers]
    parents = {name.rpartition(".")[0] for name in names if name.rpartition(".")[2].isdigit()}
    return {f"{parent}.*": "free_full_weight" for parent in sorted(parents)}


def check(model: Any, shard: Shard) -> None:
    """Raise StageError unless this rank holds its part of the weights alone, and gathers them in parts."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    parameters = list(model.parameters())
    local = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
    total = sum(p.numel() for p in parameters)
    parts = sum(isinstance(module, FSDPModule) for module in model.modules())
    if local > 1.5 * total / shard.size or parts < 2:
        raise StageError(
            f"{type(model).__name__} can't be spread over {shard.size} devices: this one holds {local} of "
            f"{total} weights, in {parts} parts",
            "leave predict out of `after`",
        )
