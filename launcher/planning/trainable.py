"""How many parameters a method trains."""

from __future__ import annotations

from launcher.dimensions import Dimensions
from launcher.spec.method import Method


def parameters(size: Dimensions, method: Method) -> int:
    if method.type == "full":
        return size.parameters
    return size.lora_parameters(method.rank, method.target_modules)
