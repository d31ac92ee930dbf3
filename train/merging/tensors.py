"""Tensors in safetensors files, found by their headers and read one at a time.

Files are read with plain reads, not memory-mapped: mapped pages count as resident memory, so a mapping would
make the peak grow with the file instead of with the tensor.

Format: https://github.com/huggingface/safetensors#format (8 bytes header length, JSON header, data).
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.stage import StageUserError

if TYPE_CHECKING:
    import torch

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_COPY_BLOCK_BYTES = 8 * 1024 * 1024

#: safetensors' names of the dtypes that weights are computed in; others (integers, 8-bit floats) only pass.
TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ITEM_SIZE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class Memory(threading.local):
    """Buffers that a thread uses again for tensor after tensor: getting fresh pages from the system for each
    takes longer than the arithmetic."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, slot: str, size_bytes: int) -> torch.Tensor:
        """`size_bytes` bytes (uint8) of the calling thread's buffer `slot`; valid until it is taken again."""
        import torch

        buffer = self._buffers.get(slot)
        if buffer is None or buffer.numel() < size_bytes:
            self._buffers[slot] = buffer = torch.empty(size_bytes, dtype=torch.uint8)
        return buffer[:size_bytes]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file: `size_bytes` bytes from `offset` on, row-major."""

    name: str
    dtype: str  # safetensors' name, as "BF16"
    shape: tuple[int, ...]
    file: Path
    offset: int
    size_bytes: int

    def read(self, memory: torch.Tensor | None = None) -> torch.Tensor:
        """The tensor, in the first bytes of `memory` (uint8) if given. Raises StageUserError for a dtype
        outside `TORCH_DTYPES`."""
        import torch

        if self.dtype not in TORCH_DTYPES:
            raise StageUserError(
                f"{self.file.name}: {self.name} has the dtype {self.dtype}, an adapter can't be added to it",
                "use the unquantized base model",
            )
        data = (
            torch.empty(self.size_bytes, dtype=torch.uint8) if memory is None else memory[: self.size_bytes]
        )
        view = memoryview(data.numpy())
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset)
            filled = 0
            while filled < self.size_bytes:
                count = stream.readinto(view[filled:])
                if not count:
                    raise StageUserError(
                        f"{self.file} ends within the tensor {self.name}", "fetch the file again"
                    )
                filled += count
        return data.view(getattr(torch, TORCH_DTYPES[self.dtype])).reshape(self.shape)

    def blocks(self) -> Iterator[memoryview]:
        """The tensor's bytes, a few megabytes at a time; a block is valid until the next one."""
        block = memoryview(bytearray(min(_COPY_BLOCK_BYTES, self.size_bytes)))
        left = self.size_bytes
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset)
            while left:
                count = stream.readinto(block[: min(left, len(block))])
                if not count:
                    raise StageUserError(
                        f"{self.file} ends within the tensor {self.name}", "fetch the file again"
                    )
                left -= count
                yield block[:count]


def read_header(file: Path) -> list[StoredTensor]:
    """The file's tensors in the order of their data. Raises StageUserError for a broken file."""
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size_bytes - 8):
            raise StageUserError(f"{file} is not a safetensors file", "fetch the file again")
        try:
            header = json.loads(stream.read(length))
            tensors = [
                _entry(name, row, file, 8 + length) for name, row in header.items() if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageUserError(
                f"{file}: its safetensors header is broken ({error})", "fetch it again"
            ) from error
    for tensor in tensors:
        if tensor.size_bytes < 0 or tensor.offset + tensor.size_bytes > size_bytes:
            raise StageUserError(
                f"{file} is cut short: {tensor.name} lies beyond its end", "fetch the file again"
            )
    return sorted(tensors, key=lambda tensor: (tensor.offset, tensor.name))


def _entry(name: str, row: dict[str, Any], file: Path, data_offset: int) -> StoredTensor:
    begin, end = row["data_offsets"]
    return StoredTensor(name, row["dtype"], tuple(row["shape"]), file, data_offset + begin, end - begin)


def model_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a model folder by name, file by file in the order of their data.

    Raises StageUserError where the folder has no safetensors weights, or a file of its index is missing.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    elif (folder / SINGLE_NAME).is_file():
        weight_map, files = {}, [folder / SINGLE_NAME]
    else:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        found = f"only pickled weights ({pickles[0]})" if pickles else "no weights"
        raise StageUserError(f"{folder} has {found}", "use a model with safetensors weights")
    missing = [file.name for file in files if file.parent != folder or not file.is_file()]
    if missing:
        raise StageUserError(f"{folder} lacks {missing[0]}, which its index names", "fetch the model again")
    tensors = {tensor.name: tensor for file in files for tensor in read_header(file)}
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise StageUserError(f"{folder}: no file holds {lost[0]}, which its index names", "fetch it again")
    return tensors


def encode_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """What comes before the data of a safetensors file whose tensors (name, dtype, shape, size in bytes) lie
    one after another in the given order. Padded so that the data starts at a multiple of 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype, shape, size_bytes in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size_bytes]}
        offset += size_bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
