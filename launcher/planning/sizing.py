"""Strategy, gradient checkpointing and micro-batch size: the ones that fit the memory, and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from artifacts.contract import Derived, Offload, Optimizer, Precision, Quantization, Strategy
from launcher.dimensions import Dimensions
from launcher.memory import USABLE_SHARE, Estimate, Setting, bytes_text, estimate
from launcher.planning.matrix import STRATEGIES

#: Tokens of one forward pass beyond which a device is busy anyway; more only cost memory.
TOKENS_PER_PASS_GPU = 16_384
TOKENS_PER_PASS_CPU = 4_096
#: Recomputing activations costs about a fifth of the speed (training-facts, torchtune: −21 %); a GPU pays
#: about as much for passes below this many tokens, so larger ones are bought with checkpointing.
WORTH_CHECKPOINTING_TOKENS = 4_096


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the job says (None or `auto`: to be derived) and what it runs on."""

    dimensions: Dimensions | None  # None: the model's config can't be read here
    trainable: int  # parameters; 0 where the dimensions are unknown
    frozen: int  # parameters of the base that are not trained; as above
    precision: Precision
    workers: int
    sequences_per_worker: int  # of one optimizer step
    max_length: int
    strategy: Strategy | Literal["auto"]
    offload: Offload
    gradient_checkpointing: bool | Literal["auto"]
    micro_batch_size: int | None
    gpu_memory_bytes: int | None  # of one GPU; None: the workers compute on cores
    host_memory_bytes: int  # of all workers together
    host: str = "this machine"  # whose memory that is
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    shards: int | None = None  # ranks that fsdp splits weights over; None: all
    fitting: frozenset[Strategy] = frozenset(STRATEGIES)  # those that go with the method (planning.matrix)

    @property
    def on_gpu(self) -> bool:
        return self.gpu_memory_bytes is not None

    @property
    def hosts(self) -> str:
        """`this machine's`, `its pods'`."""
        return f"{self.host}'" if self.host.endswith("s") else f"{self.host}'s"


@dataclass(frozen=True, kw_only=True)
class Sizing:
    strategy: Strategy
    offload: Offload
    gradient_checkpointing: bool
    micro_batch_size: int
    estimate: Estimate | None
    derived: list[Derived] = field(default_factory=list)
    misfit: str | None = None  # why the run can't fit, where it can't


def choose(request: Request) -> Sizing:
    """The first strategy that fits, then the fewest recomputed activations, then the largest micro-batch."""
    dimensions = request.dimensions
    if dimensions is None:
        return _without_dimensions(request)
    strategy, offload, strategy_reason, misfit = _strategy(request, dimensions)
    base = _setting(request, dimensions, strategy, offload)
    checkpointing, checkpointing_reason = _checkpointing(request, base)
    base = dataclasses.replace(base, gradient_checkpointing=checkpointing)
    micro, micro_reason = _micro_batch_size(request, base)
    chosen = dataclasses.replace(base, micro_batch_size=micro)
    result = estimate(chosen, on_gpu=request.on_gpu)
    derived = []
    if request.strategy == "auto":
        derived.append(Derived(field="strategy.type", value=strategy, reason=strategy_reason))
    if offload != request.offload:
        derived.append(Derived(field="strategy.offload", value=offload, reason=strategy_reason))
    if request.gradient_checkpointing == "auto":
        name = "training.gradient_checkpointing"
        derived.append(Derived(field=name, value=checkpointing, reason=checkpointing_reason))
    if request.micro_batch_size is None:
        derived.append(Derived(field="training.micro_batch_size", value=micro, reason=micro_reason))
    return Sizing(
        strategy=strategy,
        offload=offload,
        gradient_checkpointing=checkpointing,
        micro_batch_size=micro,
        estimate=result,
        derived=derived,
        misfit=misfit,
    )


def memory_lines(request: Request, result: Estimate) -> list[Derived]:
    """The arithmetic of an estimate, one line a term, for the plan."""

    def line(part: str, name: str, number: int, text: str) -> Derived:
        return Derived(field=f"memory.{part}.{name}", value=number, reason=text)

    machine = f"of {bytes_text(request.host_memory_bytes)} on {request.host}"
    if request.gpu_memory_bytes is not None:
        bound = f"of {bytes_text(request.gpu_memory_bytes)} on its GPU"
    else:
        together = f"{request.workers} of them {bytes_text(request.workers * result.worker_bytes)}"
        bound = machine if request.workers == 1 else f"{together}, {machine}"
    derived = [line("worker", term.name, term.bytes, term.formula) for term in result.worker]
    derived.append(line("worker", "total", result.worker_bytes, bound))
    if result.host:
        derived += [line("host", term.name, term.bytes, term.formula) for term in result.host]
        derived.append(line("host", "total", result.host_bytes, machine))
    return derived


def _setting(request: Request, dimensions: Dimensions, strategy: Strategy, offload: Offload) -> Setting:
    """The leanest setting of a strategy that the job allows."""
    return Setting(
        dimensions=dimensions,
        trainable=request.trainable,
        frozen=request.frozen,
        quantization=request.quantization,
        optimizer=request.optimizer,
        shards=request.shards if strategy == "fsdp" else None,
        precision=request.precision,
        strategy=strategy,
        offload=offload,
        workers=request.workers,
        micro_batch_size=request.micro_batch_size or 1,
        max_length=request.max_length,
        gradient_checkpointing=request.gradient_checkpointing is not False,
    )


def _fullness(request: Request, setting: Setting) -> float:
    """Share of the scarcer memory that `setting` needs."""
    need = estimate(setting, on_gpu=request.on_gpu)
    if request.gpu_memory_bytes is None:
        return (request.workers * need.worker_bytes + need.host_bytes) / request.host_memory_bytes
    return max(need.worker_bytes / request.gpu_memory_bytes, need.host_bytes / request.host_memory_bytes)


def _fits(request: Request, setting: Setting) -> bool:
    return _fullness(request, setting) <= USABLE_SHARE


def _strategy(request: Request, dimensions: Dimensions) -> tuple[Strategy, Offload, str, str | None]:
    """(strategy, offload, reason, why nothing fits)."""
    candidates = _candidates(request)
    too_large: list[str] = []
    for strategy, offload in candidates:
        setting = _setting(request, dimensions, strategy, offload)
        if _fits(request, setting):
            reason = _need(request, setting, "needs at least")
            if too_large:
                reason = f"{'; '.join(too_large)}; {reason}"
            return strategy, offload, f"{_who(request)}: {reason}", None
        too_large.append(_need(request, setting, "needs at least"))
    strategy, offload = candidates[-1]
    over = _fullness(request, _setting(request, dimensions, strategy, offload)) > 1
    reason = "; ".join(too_large)
    return strategy, offload, f"tight: {reason}", reason if over else None


def _candidates(request: Request) -> list[tuple[Strategy, Offload]]:
    if request.strategy != "auto":
        return [(request.strategy, request.offload)]
    if request.offload != "none":
        sharding: Strategy = "zero3" if "zero3" in request.fitting else "zero2"
        return [(sharding, request.offload)]
    if not request.on_gpu:
        return [("ddp", "none")]
    several: list[tuple[Strategy, Offload]] = [("fsdp", "none"), ("zero2", "none")]
    candidates: list[tuple[Strategy, Offload]] = [
        ("ddp", "none"),
        *(several if request.workers > 1 else ()),
        ("zero2", "optimizer"),
        ("zero3", "optimizer"),
        ("zero3", "params"),
    ]
    # What splits the weights too saves more; zero2 is for what can't be split.
    leaner = {"zero2"} if {"fsdp", "zero3"} <= request.fitting else set()
    return [(strategy, offload) for strategy, offload in candidates if strategy in request.fitting - leaner]


def _who(request: Request) -> str:
    workers = "one worker" if request.workers == 1 else f"{request.workers} workers"
    return f"{workers} on {'GPUs' if request.on_gpu else 'CPU'}"


def _need(request: Request, setting: Setting, needs: str = "needs") -> str:
    """`ddp needs 148.6 GB of a GPU's 80.0 GB`."""
    need = estimate(setting, on_gpu=request.on_gpu)
    offload = "" if setting.offload == "none" else f" with offload {setting.offload}"
    machine = f"of {request.hosts} {bytes_text(request.host_memory_bytes)}"
    text = f"{setting.strategy}{offload} {needs} "
    if request.gpu_memory_bytes is None:
        return f"{text}{bytes_text(request.workers * need.worker_bytes + need.host_bytes)} {machine}"
    text += f"{bytes_text(need.worker_bytes)} of a GPU's {bytes_text(request.gpu_memory_bytes)}"
    return f"{text} and {bytes_text(need.host_bytes)} {machine}" if need.host_bytes else text


def _checkpointing(request: Request, setting: Setting) -> tuple[bool, str]:
    if request.gradient_checkpointing != "auto":
        return request.gradient_checkpointing, ""
    enough = 1
    if request.on_gpu:
        enough = max(1, min(request.sequences_per_worker, WORTH_CHECKPOINTING_TOKENS // request.max_length))
    micro = request.micro_batch_size or enough
    kept = dataclasses.replace(setting, gradient_checkpointing=False, micro_batch_size=micro)
    if _fits(request, kept):
        return False, "all activations fit; recomputing them would cost about a fifth of the speed"
    return True, f"activations are recomputed: kept, {_need(request, kept)}"


def _micro_batch_size(request: Request, setting: Setting) -> tuple[int, str]:
    if request.micro_batch_size is not None:
        return request.micro_batch_size, ""
    share = request.sequences_per_worker
    limit = TOKENS_PER_PASS_GPU if request.on_gpu else TOKENS_PER_PASS_CPU
    divisors = [number for number in range(share, 0, -1) if share % number == 0]
    filled = [number for number in divisors if number == 1 or number * request.max_length <= limit]
    micro = next((n for n in filled if _fits(request, dataclasses.replace(setting, micro_batch_size=n))), 1)
    if micro == share:
        why = f"all {share} sequences of a worker's step fit one forward pass"
    elif micro == filled[0]:
        tokens = f"{micro * request.max_length:,} tokens"
        why = f"{tokens} a pass keep a {'GPU' if request.on_gpu else 'CPU worker'} busy"
    else:
        why = f"the largest divisor of {share} sequences that fits the memory"
    return micro, why


def _without_dimensions(request: Request) -> Sizing:
    """Safe defaults: shard over several GPUs, one sequence at a time, recompute."""
    unknown = "the model's config.json is not on this machine, so its size is unknown"
    safe = f"{unknown}; a safe choice"
    strategy: Strategy = "fsdp" if request.on_gpu and request.workers > 1 else "ddp"
    if request.offload != "none":
        strategy = "zero3"
    checkpointing = (
        request.on_gpu if request.gradient_checkpointing == "auto" else request.gradient_checkpointing
    )
    derived = []
    if request.strategy == "auto":
        derived.append(Derived(field="strategy.type", value=strategy, reason=safe))
    if request.gradient_checkpointing == "auto":
        name = "training.gradient_checkpointing"
        derived.append(Derived(field=name, value=checkpointing, reason=safe))
    if request.micro_batch_size is None:
        derived.append(Derived(field="training.micro_batch_size", value=1, reason=safe))
    derived.append(Derived(field="memory", value=None, reason=f"{unknown}: no estimate"))
    return Sizing(
        strategy=strategy if request.strategy == "auto" else request.strategy,
        offload=request.offload,
        gradient_checkpointing=checkpointing,
        micro_batch_size=request.micro_batch_size or 1,
        estimate=None,
        derived=derived,
    )
