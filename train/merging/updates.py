"""What an adapter does to a tensor of the base.

The arithmetic is PEFT 0.21's own (`peft/tuners/lora/layer.py`: `Linear.merge`, `Embedding.merge` and their
`get_delta_weight`; `lora/variants.py`: `DoraLinearVariant.merge_unsafe`; `ia3/layer.py`: `Linear.merge`;
`trainable_tokens/layer.py`: `merge`), operation by operation and dtype by dtype, so that the merged weights
have its bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from train.merging.tensors import Memory, StoredTensor

if TYPE_CHECKING:
    import torch

_BLOCK_ELEMENTS = 1 << 17
Shape = tuple[int, ...]


class Update(Protocol):
    """A change of one tensor, in place."""

    @property
    def shape(self) -> Shape:
        """Of the tensor that the change fits, as far as the change can tell (0: any length)."""
        ...

    def apply(self, weight: torch.Tensor, memory: Memory) -> None: ...


@dataclass(frozen=True)
class LoraUpdate:
    """`weight += scaling * B @ A` of one module: A (rank, in), B (out, rank). With a `magnitude` (out,) the
    sum's rows are then scaled to these lengths (DoRA, https://arxiv.org/abs/2402.09353).

    An embedding's are A (rank, vocabulary), B (dimension, rank), and the product is transposed; a magnitude
    (dimension,) is of its columns.
    """

    a: StoredTensor
    b: StoredTensor
    scaling: float
    embedding: bool = False
    transposed: bool = False  # fan_in_fan_out: the base weight is (in, out), as GPT-2's Conv1D
    magnitude: StoredTensor | None = None

    @property
    def shape(self) -> Shape:
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.embedding or self.transposed else (out, into)

    def apply(self, weight: torch.Tensor, memory: Memory) -> None:
        """The product is one call over the whole matrix, as PEFT's, so that sums are taken in the same order;
        what follows is done element by element and can go block by block, which stays in the cache."""
        import torch

        dtype = _compute_dtype(weight)
        a, b = self.a.read().to(dtype), self.b.read().to(dtype)
        rows, columns = b.shape[0], a.shape[1]
        delta = memory.take("delta", rows * columns * dtype.itemsize).view(dtype).view(rows, columns)
        torch.mm(b, a, out=delta)
        if self.magnitude is not None and self.embedding:
            return self._scale_columns(weight, delta.T)
        if self.magnitude is not None:
            return self._scale_rows(weight.T if self.transposed else weight, delta)
        if self.embedding or self.transposed:
            delta = delta.T
        step = max(1, _BLOCK_ELEMENTS // weight.shape[1])
        for part, block in zip(weight.split(step), delta.split(step), strict=True):
            block *= self.scaling
            part += block.to(weight.dtype) if self.embedding else block

    def _scale_rows(self, weight: torch.Tensor, delta: torch.Tensor) -> None:
        import torch

        assert self.magnitude is not None
        magnitude = self.magnitude.read().to(delta.dtype)
        step = max(1, _BLOCK_ELEMENTS // weight.shape[1])
        for part, block, lengths in zip(
            weight.split(step), delta.split(step), magnitude.split(step), strict=True
        ):
            block *= self.scaling
            moved = part + block
            factor = lengths / torch.linalg.norm(moved, dim=1).to(moved.dtype)
            part.copy_(factor.view(-1, 1) * moved)

    def _scale_columns(self, weight: torch.Tensor, delta: torch.Tensor) -> None:
        """The lengths are sums over all rows, which are taken in one call, as PEFT's are."""
        import torch

        assert self.magnitude is not None
        moved = weight + delta * self.scaling
        lengths = torch.linalg.norm(moved.T, dim=1)
        weight.copy_((self.magnitude.read().to(delta.dtype) / lengths).view(1, -1) * moved)


@dataclass(frozen=True)
class BiasUpdate:
    """`bias += lora_B.bias * scaling` (LoraConfig's `lora_bias`)."""

    b: StoredTensor
    scaling: float

    @property
    def shape(self) -> Shape:
        return self.b.shape

    def apply(self, bias: torch.Tensor, memory: Memory) -> None:
        bias += self.b.read().to(_compute_dtype(bias)) * self.scaling


@dataclass(frozen=True)
class FactorUpdate:
    """`weight *= factor` (IA3): of the outputs, (out, 1), which scales the bias too, or of a feed-forward
    layer's inputs, (1, in)."""

    factor: StoredTensor
    transposed: bool = False  # as LoraUpdate's
    bias: bool = False  # of a bias (out,)

    @property
    def shape(self) -> Shape:
        out, into = (size if size > 1 else 0 for size in self.factor.shape)
        if self.bias:
            return (out,)
        return (into, out) if self.transposed else (out, into)

    def apply(self, weight: torch.Tensor, memory: Memory) -> None:
        factor = self.factor.read().to(_compute_dtype(weight))
        if self.bias:
            factor = factor.reshape(weight.shape)
        weight.copy_(weight * (factor.T if self.transposed and not self.bias else factor))


@dataclass(frozen=True)
class RowsUpdate:
    """Rows of an embedding or output head, replaced or, beyond its end, added: `rows` (n, dimension)."""

    rows: StoredTensor
    indices: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        return (0, self.rows.shape[1])

    @property
    def needed(self) -> int:
        """Rows that the tensor has at least."""
        return max(self.indices) + 1

    def apply(self, weight: torch.Tensor, memory: Memory) -> None:
        import torch

        weight.index_copy_(0, torch.tensor(self.indices), self.rows.read().to(weight.dtype))


def _compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """PEFT keeps adapter weights in float32 beside a half-precision base (`cast_adapter_dtype`), else in the
    base's dtype."""
    import torch

    return torch.float32 if weight.dtype in (torch.float16, torch.bfloat16) else weight.dtype
