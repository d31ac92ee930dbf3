"""PEFT and transformers without the quantization libraries that a run does not use. They import them
(bitsandbytes 3 s of CPU, gptqmodel 5 s and a banner, torchao 1 s) only to compare types; told that they are
missing, they import none."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from artifacts.contract import Quantization

#: Which library each quantization of the base needs.
LIBRARIES: dict[Quantization, str] = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "gptq": "gptqmodel"}
_OPTIONAL = ("bitsandbytes", "gptqmodel", "torchao")


def prepare(quantization: Quantization = "none") -> None:
    """Import PEFT, and have it and transformers find of the quantization libraries only what that needs. Call
    before the first use of either, and again where another quantization is wanted."""
    with _not_importable(set(_OPTIONAL) - {LIBRARIES.get(quantization)}):
        for asked in _cached_questions():
            asked.cache_clear()
            asked()


def _cached_questions() -> Iterator[Callable[[], bool] | Any]:
    """Those functions, each of which remembers its first answer, that say whether a library is there."""
    yield importlib.import_module("transformers.utils").is_torchao_available
    peft = importlib.import_module("peft.import_utils")
    yield peft.is_bnb_available
    yield peft.is_bnb_4bit_available
    yield peft.is_gptqmodel_available
    yield peft.is_torchao_available


@contextlib.contextmanager
def _not_importable(names: set[str]) -> Iterator[None]:
    """While it lasts, these packages can't be found, unless they are imported already: None in `sys.modules`
    has that meaning (https://docs.python.org/3/reference/import.html#the-module-cache)."""
    hidden = {name for name in names if name not in sys.modules}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
