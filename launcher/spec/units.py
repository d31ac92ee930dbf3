"""Amounts of memory as jobs write them -> bytes."""

from __future__ import annotations

import re
from decimal import Decimal

#: As Kubernetes writes quantities of memory: 1024s with an `i`, 1000s without, bytes with no suffix.
MEMORY_PATTERN = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
#: As transformers' `max_shard_size`, powers of 1000.
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(KB|MB|GB)$"

_FACTORS = {
    "": 1,
    **{"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12},
    **{"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40},
    **{"KB": 10**3, "MB": 10**6, "GB": 10**9},
}


def to_bytes(text: str) -> int:
    """`"64Gi"` -> 68719476736, `"5GB"` -> 5000000000. Raises ValueError unless a pattern matches."""
    if not (re.fullmatch(MEMORY_PATTERN, text) or re.fullmatch(SIZE_PATTERN, text)):
        raise ValueError(f"not an amount of memory: {text!r}")
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    return int(Decimal(number) * _FACTORS[suffix])
