"""What GPTQ's files can hold."""

from __future__ import annotations

import pytest

from artifacts.gptq import misfit

QWEN3_8B = {"q_proj": (4096, 4096), "k_proj": (4096, 1024), "down_proj": (12288, 4096)}
QWEN2_HALF_B = {"o_proj": (896, 896), "k_proj": (896, 128), "down_proj": (4864, 896)}


@pytest.mark.parametrize("group_size", [-1, 32, 64, 128, 256])
def test_what_fits(group_size: int) -> None:
    assert misfit(QWEN3_8B, group_size) is None


@pytest.mark.parametrize(
    ("shapes", "group_size", "why", "way_out"),
    [
        (
            QWEN2_HALF_B,
            256,
            "o_proj has 896 input channels, which groups of 256 don't divide",
            "set quantize.group_size to 128 or 64 or 32 or -1",
        ),
        (
            {"a": (96, 64), "b": (64, 64)},
            128,
            "a has 96 input channels, which groups of 128 don't divide",
            "set quantize.group_size to 32 or -1",
        ),
        (
            {"a": (64, 64), "b": (72, 64)},
            -1,
            "b has 72 input channels, and GPTQ packs multiples of 32",
            "leave quantize out",
        ),
        (
            {"a": (64, 16)},
            32,
            "a has 16 output channels, and GPTQ packs multiples of 32",
            "leave quantize out",
        ),
    ],
)
def test_what_does_not(shapes: dict[str, tuple[int, int]], group_size: int, why: str, way_out: str) -> None:
    assert misfit(shapes, group_size) == (why, way_out)
