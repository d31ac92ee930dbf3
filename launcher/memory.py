"""Bytes per GPU and per host of a training run, with the arithmetic shown.

P parameters, T trainable ones, N workers, s tokens per worker and forward pass, L layers, h hidden size,
I MLP width, V vocabulary. Weights, gradients and optimizer states follow from the method and the strategy;
activations from the blocks of transformers' implementations; the last term, context and fragmentation, was
fitted on published runs (Qwen-7B, LoRA and full, one A100: QwenLM/Qwen README, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.contract import Offload, Precision, Strategy
from launcher.dimensions import Dimensions

#: So many logits (tokens × vocabulary) are computed at a time (`train.loss.CHUNK_ELEMENTS`).
LOSS_CHUNK_ELEMENTS = 32 * 1024 * 1024
#: CUDA context, NCCL, workspaces and fragmentation of one GPU.
GPU_OVERHEAD_BYTES = 1_800_000_000
#: Python with torch and transformers imported, one worker process.
PROCESS_OVERHEAD_BYTES = 800_000_000
#: Share of the memory that a plan fills at most: an estimate is within about 10 %.
USABLE_SHARE = 0.9
#: DeepSpeed's estimator for pinned buffers beside offloaded states (deepspeed 0.19
#: `estimate_zero3_model_states_mem_needs`, `additional_buffer_factor`).
OFFLOAD_BUFFER_FACTOR = 1.5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the memory of a run depends on."""

    dimensions: Dimensions
    trainable: int  # parameters: all for full, the adapters' for lora
    precision: Precision
    strategy: Strategy
    offload: Offload
    workers: int
    micro_batch_size: int
    max_length: int
    gradient_checkpointing: bool

    @property
    def full(self) -> bool:
        return self.trainable >= self.dimensions.parameters

    @property
    def compute_bytes(self) -> int:
        """Bytes of one number in a forward pass."""
        return 4 if self.precision == "fp32" else 2


@dataclass(frozen=True)
class Term:
    """One summand: what it holds, how much, and the formula with its numbers."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True)
class Estimate:
    worker: tuple[Term, ...]  # in the worker's device: a GPU, or host memory on CPU
    host: tuple[Term, ...] = ()  # offloaded states, of all workers of this host together

    @property
    def worker_bytes(self) -> int:
        return sum(term.bytes for term in self.worker)

    @property
    def host_bytes(self) -> int:
        return sum(term.bytes for term in self.host)


def estimate(setting: Setting, *, on_gpu: bool) -> Estimate:
    """Memory of one worker, and what offloading puts into the host's."""
    overhead = (
        Term("CUDA context, fragmentation", GPU_OVERHEAD_BYTES, "fitted")
        if on_gpu
        else Term("process", PROCESS_OVERHEAD_BYTES, "Python with torch and transformers")
    )
    states, host = _states(setting)
    return Estimate((*states, *_activations(setting), overhead), host)


def _states(setting: Setting) -> tuple[list[Term], tuple[Term, ...]]:
    """Weights, gradients and AdamW's moments: (on the worker, on the host)."""
    total, trainable, workers = setting.dimensions.parameters, setting.trainable, setting.workers
    weight = setting.compute_bytes
    if setting.full:
        # fp32 weights 4 + gradients 4 + AdamW 8, and 16-bit copies of the weights where there is autocast.
        per_parameter = 16 if setting.precision == "fp32" else 18
        name, trained = "weights, gradients, AdamW", _Share(per_parameter, total, "P")
        frozen = _Share(0, 0, "")
    else:
        # fp32 adapters 4 + gradients 4 + AdamW 8, beside frozen weights in the precision of the forward pass.
        name, trained = "adapters, gradients, AdamW", _Share(16, trainable, "T")
        frozen = _Share(weight, total, "P")
    if setting.strategy == "ddp" or (setting.strategy == "zero2" and not setting.full):
        return [*frozen.terms("frozen weights"), *trained.terms(name)], ()
    if setting.strategy == "zero2":
        whole = _Share(weight, total, "P").terms("whole weights")
        if setting.offload == "none":
            return [*whole, *trained.terms(name, workers)], ()
        return whole, _offloaded(16, total, "P")
    gathered = _gathered(setting)
    if setting.offload == "none":
        shards = [*frozen.terms("frozen weights", workers), *trained.terms(name, workers)]
        return [*shards, gathered], ()
    if setting.strategy == "zero3" and setting.offload == "optimizer":
        shards = _Share(weight, total, "P").terms("weights", workers)
        host = _offloaded(16, total, "P") if setting.full else _offloaded(12, trainable, "T")
        return [*shards, gathered], host
    # Everything lies in host memory; a worker holds what it computes with at the moment.
    host = _offloaded(trained.bytes_each, trained.count, trained.symbol)
    if not setting.full:
        host += _offloaded(frozen.bytes_each, frozen.count, frozen.symbol)
    return [gathered], host


@dataclass(frozen=True)
class _Share:
    """`bytes_each` × `count`, perhaps divided over workers."""

    bytes_each: int
    count: int
    symbol: str

    def terms(self, name: str, workers: int = 1) -> list[Term]:
        if not self.count:
            return []
        total = self.bytes_each * self.count
        text = f"{self.bytes_each} B × {self.symbol} {count(self.count)}"
        return [Term(name, total // workers, text if workers == 1 else f"{text} ÷ {workers} workers")]


def _offloaded(bytes_each: int, number: int, symbol: str) -> tuple[Term, ...]:
    total = int(bytes_each * number * OFFLOAD_BUFFER_FACTOR)
    formula = f"{bytes_each} B × {symbol} {count(number)} × {OFFLOAD_BUFFER_FACTOR} (buffers)"
    return (Term("offloaded states", total, formula),)


def _gathered(setting: Setting) -> Term:
    """What sharding strategies gather while they compute: the block at work and the next one, and the
    embeddings, which FSDP2's root module keeps and ZeRO-3 gathers as its largest layer."""
    dims, size = setting.dimensions, setting.compute_bytes
    blocks, embedding = 2 * dims.layer_parameters, dims.embedding_parameters
    total = size * (blocks + embedding)
    formula = f"{size} B × (2 blocks {count(blocks)} + embedding {count(embedding)})"
    return Term("gathered weights", total, formula)


def _activations(setting: Setting) -> list[Term]:
    dims, size = setting.dimensions, setting.compute_bytes
    tokens = setting.micro_batch_size * setting.max_length
    queries, keys = dims.attention_heads * dims.head_size, dims.key_value_heads * dims.head_size
    width = dims.intermediate_size * max(1, dims.experts_per_token)
    # Kept for the backward pass of one block, per token: two RMSNorms (an fp32 copy of the input, the
    # normalised value, the output), queries, keys, values and attention's output, and the gated MLP's four
    # tensors (gate, its activation, up, their product).
    per_token = 2 * (4 + 2 * size) * dims.hidden_size + size * (2 * queries + 2 * keys) + 4 * size * width
    block = Term("activations of one block", tokens * per_token, f"s {tokens:,} × {per_token:,} B")
    if setting.gradient_checkpointing:
        kept = tokens * size * dims.layers * dims.hidden_size
        formula = f"s {tokens:,} × {size} B × L {dims.layers} × h {dims.hidden_size:,}"
        terms = [Term("checkpointed activations", kept, formula), block]
    else:
        formula = f"L {dims.layers} × s {tokens:,} × {per_token:,} B"
        terms = [Term("activations", dims.layers * block.bytes, formula)]
    # Eager cross entropy: logits, their fp32 copy and their gradient, 12 B each (fitted on published runs).
    chunk = min(tokens * dims.vocabulary_size, LOSS_CHUNK_ELEMENTS)
    return [*terms, Term("logits", 12 * chunk, f"12 B × {count(chunk)} logits at a time")]


def bytes_text(number: float) -> str:
    """`81.9 GB`, `640 MB`, `12 kB` (powers of 1000)."""
    for unit, size, digits in (("GB", 10**9, 1), ("MB", 10**6, 0), ("kB", 10**3, 0)):
        if number >= size:
            return f"{number / size:,.{digits}f} {unit}"
    return f"{number:.0f} B"


def count(number: int) -> str:
    """`8.19 G` parameters."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
