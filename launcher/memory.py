"""Bytes per GPU and per host of a training run, with the arithmetic shown.

P parameters, T trainable ones, N workers, s tokens per worker and forward pass, L layers, h hidden size,
I MLP width, V vocabulary. Weights, gradients and optimizer states follow from the method and the strategy;
activations from the blocks of transformers' implementations; the last term, context and fragmentation, was
fitted on published runs (Qwen-7B, LoRA and full, one A100: QwenLM/Qwen README, 2024).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from artifacts.contract import Offload, Optimizer, Precision, Quantization, Strategy
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


#: Bytes of one weight of a quantized linear layer, its scales among them: NF4 with double quantization
#: 0.5 + 8/64/8 + 32/(64·256)/8 (arXiv 2305.14314), INT8 one, GPTQ's 4 bits in groups of 128 with a 16-bit
#: scale and a 4-bit zero each.
QUANTIZED_WEIGHT_BYTES: dict[Quantization, float] = {"nf4": 0.52, "int8": 1.0, "gptq": 0.52}
#: Bytes of optimizer state a trained parameter: two moments in 32 bits, in 8 bits, or (Adafactor) sums over
#: rows and columns, which are next to nothing. Paged state counts whole: it moves out only when short.
OPTIMIZER_BYTES: dict[Optimizer, int] = {
    "adamw": 8,
    "adamw_8bit": 2,
    "paged_adamw": 8,
    "paged_adamw_8bit": 2,
    "adafactor": 0,
}
_OPTIMIZER_NAMES: dict[Optimizer, str] = {
    "adamw": "AdamW",
    "adamw_8bit": "8-bit AdamW",
    "paged_adamw": "paged AdamW",
    "paged_adamw_8bit": "paged 8-bit AdamW",
    "adafactor": "Adafactor",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the memory of a run depends on."""

    dimensions: Dimensions
    trainable: int  # parameters that get gradients
    frozen: int  # those of the base that don't
    precision: Precision
    strategy: Strategy
    offload: Offload
    workers: int
    micro_batch_size: int
    max_length: int
    gradient_checkpointing: bool
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    shards: int | None = None  # ranks that weights are split over; None: all workers

    @property
    def full(self) -> bool:
        return not self.frozen

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
    """Weights, gradients and optimizer state: (on the worker, on the host)."""
    total, workers = setting.dimensions.parameters, setting.shards or setting.workers
    weight, moments = setting.compute_bytes, OPTIMIZER_BYTES[setting.optimizer]
    # fp32 weights 4 + gradients 4 + the optimizer's, and 16-bit copies of weights where there is autocast.
    copies = 2 if setting.full and setting.precision != "fp32" else 0
    what, symbol = ("weights", "P") if setting.full else ("adapters", "T")
    name = f"{what}, gradients, {_OPTIMIZER_NAMES[setting.optimizer]}"
    trained = _Share(8 + moments + copies, setting.trainable, symbol)
    frozen = _frozen(setting)
    if setting.strategy in ("single", "ddp") or (setting.strategy in ("zero1", "zero2") and not setting.full):
        return [*_terms(frozen, "frozen weights"), *trained.terms(name)], ()
    if setting.strategy in ("zero1", "zero2"):
        whole = _Share(weight, total, "P").terms("whole weights")
        if setting.strategy == "zero1":
            whole += _Share(weight, total, "P").terms("whole gradients")
            trained = dataclasses.replace(trained, bytes_each=trained.bytes_each - 4)
        if setting.offload == "none":
            return [*whole, *trained.terms(name, workers)], ()
        return whole, _offloaded(8 + moments, total, "P")
    gathered = _gathered(setting)
    if setting.offload == "none":
        return [*_terms(frozen, "frozen weights", workers), *trained.terms(name, workers), gathered], ()
    if setting.strategy == "zero3" and setting.offload == "optimizer":
        shards = _Share(weight, total, "P").terms("weights", workers)
        host = (
            _offloaded(8 + moments, total, "P")
            if setting.full
            else _offloaded(4 + moments, setting.trainable, "T")
        )
        return [*shards, gathered], host
    # Everything lies in host memory; a worker holds what it computes with at the moment.
    host = _offloaded(trained.bytes_each, trained.count, trained.symbol)
    for share in frozen:
        host += _offloaded(share.bytes_each, share.count, share.symbol)
    return [gathered], host


@dataclass(frozen=True)
class _Share:
    """`bytes_each` × `count`, perhaps divided over workers."""

    bytes_each: float
    count: int
    symbol: str

    def terms(self, name: str, workers: int = 1) -> list[Term]:
        if not self.count:
            return []
        total = int(self.bytes_each * self.count)
        text = f"{self.bytes_each:g} B × {self.symbol} {count(self.count)}"
        return [Term(name, total // workers, text if workers == 1 else f"{text} ÷ {workers} workers")]


def _frozen(setting: Setting) -> list[_Share]:
    """The base's own weights: in the precision of the forward pass, its linear layers perhaps quantized."""
    if setting.quantization == "none":
        return [_Share(setting.compute_bytes, setting.frozen, "P")]
    linear = setting.dimensions.linear_parameters
    return [
        _Share(QUANTIZED_WEIGHT_BYTES[setting.quantization], linear, "linear"),
        _Share(setting.compute_bytes, setting.frozen - linear, "other"),
    ]


def _terms(shares: list[_Share], name: str, workers: int = 1) -> list[Term]:
    terms = [term for share in shares for term in share.terms(name, workers)]
    if len(terms) < 2:
        return terms
    return [Term(name, sum(term.bytes for term in terms), " + ".join(term.formula for term in terms))]


def _offloaded(bytes_each: float, number: int, symbol: str) -> tuple[Term, ...]:
    total = int(bytes_each * number * OFFLOAD_BUFFER_FACTOR)
    formula = f"{bytes_each:g} B × {symbol} {count(number)} × {OFFLOAD_BUFFER_FACTOR} (buffers)"
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
