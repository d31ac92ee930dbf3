"""How weights, gradients and optimizer state are spread over the ranks: the options that transformers'
Trainer and accelerate need for each strategy, on GPUs (NCCL) and on CPUs (gloo) alike."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from artifacts.contract import TrainParams
from train import lean_deepspeed
from train.dtypes import DTYPES
from train.stage import StageError, StageUserError

#: Strategies that DeepSpeed carries out, by the stage of ZeRO.
DEEPSPEED_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}

_BUCKET_ELEMENTS = 200_000_000  # DeepSpeed's recommendation for large models; a small model fills one bucket


def training_options(params: TrainParams, *, on_gpu: bool) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments` for the strategy. Raises StageUserError where it can't run
    here."""
    if params.precision == "fp16" and not on_gpu:
        # DeepSpeed refuses it, and under ddp accelerate would silently train in float32.
        raise StageUserError("fp16 needs a GPU", "set training.precision to bf16 or fp32")
    if params.strategy == "fsdp":
        return {"fsdp": True, "fsdp_config": _fsdp_config(params, on_gpu=on_gpu)}
    if params.strategy in DEEPSPEED_STAGES:
        return {"deepspeed": deepspeed_config(params, on_gpu=on_gpu)}
    return {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False}


def leaves_weights_out(config: Any) -> bool:
    """Whether a forward pass may skip weights (a mixture of experts, a vision tower where there are no
    pictures), so that DDP must not wait for them."""
    text = config.get_text_config()
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return text is not config or any(getattr(text, name, None) for name in names)


def _fsdp_config(params: TrainParams, *, on_gpu: bool) -> dict[str, Any]:
    return {
        "version": 2,
        "reshard_after_forward": True,
        # FSDP2 offloads weights, gradients and state together, to pinned memory. CPUs have them there anyway.
        "cpu_offload": params.offload != "none" and on_gpu,
        "cpu_ram_efficient_loading": False,
        "state_dict_type": "SHARDED_STATE_DICT",
    }


def deepspeed_config(params: TrainParams, *, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration. https://www.deepspeed.ai/docs/config-json/"""
    stage = DEEPSPEED_STAGES[params.strategy]
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": on_gpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": _BUCKET_ELEMENTS,
    }
    pinned = {"device": "cpu", "pin_memory": on_gpu}
    if params.offload != "none":
        zero["offload_optimizer"] = pinned
    if params.offload == "params" and stage == 3:
        zero["offload_param"] = pinned
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET_ELEMENTS // 4,
            "stage3_param_persistence_threshold": 100_000 if on_gpu else 0,
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    return {
        "zero_optimization": zero,
        # torch's own fused AdamW steps offloaded state too: nothing to compile, and a resumed training goes
        # on to the bit (DeepSpeed's CPU Adam keeps a running product that a checkpoint rounds).
        "zero_force_ds_cpu_optimizer": False,
        "train_micro_batch_size_per_gpu": params.micro_batch_size,
        "gradient_accumulation_steps": params.gradient_accumulation_steps,
        "train_batch_size": params.micro_batch_size * params.gradient_accumulation_steps * params.world_size,
        "gradient_clipping": params.max_grad_norm,
        "bf16": {"enabled": params.precision == "bf16"},
        "fp16": {"enabled": params.precision == "fp16"},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def ranks_per_node(world_size: int) -> int:
    """By the launcher's word: all, where it says nothing."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size))


def shard_group_size(params: TrainParams, node_ranks: int) -> int:
    """Over how many ranks FSDP shards: all, or (hybrid) those of a node, each node holding a whole copy.
    Raises StageUserError where the nodes don't hold equally many ranks."""
    if params.sharding == "full" or node_ranks >= params.world_size:
        return params.world_size
    if params.world_size % node_ranks:
        raise StageUserError(
            f"hybrid sharding needs equally many workers on each node, and {params.world_size} do not "
            f"divide into {node_ranks} a node",
            "set strategy.sharding: full, or compute.workers to a multiple",
        )
    return node_ranks


def use_fsdp(state: Any, params: TrainParams, shard_size: int, *, device_type: str) -> None:
    """Have accelerate shard by FSDP2 over `shard_size` ranks; `state` is its `AcceleratorState`. By itself it
    would silently make FSDP a DDP on CPU (1.15), and its own plugin rounds the loss in mixed precision.

    Where that is not all ranks, over a two-dimensional mesh: the ranks of a node, which follow one another,
    hold a replica together.
    """
    from accelerate.parallelism_config import ParallelismConfig
    from accelerate.utils import DistributedType
    from torch.distributed.device_mesh import init_device_mesh

    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = fsdp_plugin(params, on_gpu=device_type == "cuda")
    if shard_size == params.world_size:
        return
    replicas = params.world_size // shard_size
    state.parallelism_config = ParallelismConfig(dp_replicate_size=replicas, dp_shard_size=shard_size)
    names = tuple(state.parallelism_config.fsdp_dim_names)
    state.device_mesh = init_device_mesh(device_type, (replicas, shard_size), mesh_dim_names=names)


def fsdp_plugin(params: TrainParams, *, on_gpu: bool) -> Any:
    """accelerate's FSDP2 plugin. Gradients are reduced, and module outputs (the loss among them) left, in
    float32, where accelerate's own mixed precision would round both."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    dtype = None if params.precision == "fp32" else DTYPES[params.precision]
    config = _fsdp_config(params, on_gpu=on_gpu)
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=config["reshard_after_forward"],
        cpu_offload=config["cpu_offload"],
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=config["cpu_ram_efficient_loading"],
        state_dict_type=config["state_dict_type"],
        mixed_precision_policy=MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
    )


def start_process_group(world_size: int, *, on_gpu: bool, strategy: str) -> None:
    """Join the ranks named by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, unless that is done
    (Ray Train does it). On GPUs, NCCL for their tensors and gloo for those in host memory.

    One DDP rank on a CPU needs no group, `single` none anywhere.
    """
    if strategy == "single":
        os.environ.pop("LOCAL_RANK", None)  # by which accelerate knows that it should join a group
        return
    if dist.is_initialized() or (world_size == 1 and strategy == "ddp" and not on_gpu):
        return
    if world_size == 1:
        for name, value in (
            ("RANK", "0"),
            ("WORLD_SIZE", "1"),
            ("LOCAL_RANK", "0"),
            ("MASTER_ADDR", "127.0.0.1"),
        ):
            os.environ.setdefault(name, value)
        os.environ.setdefault("MASTER_PORT", "0")
    if on_gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    else:
        dist.init_process_group("gloo")


def start_deepspeed() -> None:
    """Tell DeepSpeed of the process group, which it asks for while a model is still being loaded."""
    lean_deepspeed.prepare()
    import deepspeed

    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)


def reshard(model: torch.nn.Module) -> None:
    """Free what FSDP keeps gathered for a backward pass (its outermost weights), where none will come."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def check_sharded(model: torch.nn.Module, shard_size: int) -> None:
    """Raise StageError unless FSDP really shards: weights are DTensors, and this rank holds only its part,
    one of `shard_size`."""
    from torch.distributed.tensor import DTensor

    plain = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if plain:
        raise StageError(
            f"FSDP left {len(plain)} weights whole, {plain[0]} among them", "report this as a bug"
        )
    local = sum(parameter.to_local().numel() for parameter in model.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    if shard_size > 1 and local > 0.75 * total:
        raise StageError(
            f"FSDP shards nothing: this rank holds {local} of {total} weights", "report this as a bug"
        )
