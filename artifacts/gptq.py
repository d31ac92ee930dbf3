"""Which linear layers GPTQ's files can hold, and in groups of which size: what a plan refuses and the stage
checks again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: Either side of a weight is packed in runs of this many channels (gptqmodel 7.7,
#: nn_modules/qlinear/__init__.py, `pack_block`).
PACKED = 32
GROUP_SIZES = (256, 128, 64, 32)

Shapes = Mapping[str, tuple[int, int]]  # of linear layers, by name: input and output channels


class Misfit(NamedTuple):
    why: str
    way_out: str


def misfit(shapes: Shapes, group_size: int) -> Misfit | None:
    """What keeps the layers from being quantized in groups of that many input channels (-1: all)."""
    for name, shape in shapes.items():
        for channels, side in zip(shape, ("input", "output"), strict=True):
            if channels % PACKED:
                why = f"{name} has {channels} {side} channels, and GPTQ packs multiples of {PACKED}"
                return Misfit(why, "leave quantize out")
    for name, (inputs, _) in shapes.items():
        if group_size > 0 and inputs % group_size:
            why = f"{name} has {inputs} input channels, which groups of {group_size} don't divide"
            fitting = [*map(str, fitting_group_sizes(shapes)), "-1"]
            return Misfit(why, f"set quantize.group_size to {' or '.join(fitting)}")
    return None


def fitting_group_sizes(shapes: Shapes) -> list[int]:
    """The largest first."""
    return [size for size in GROUP_SIZES if all(inputs % size == 0 for inputs, _ in shapes.values())]
