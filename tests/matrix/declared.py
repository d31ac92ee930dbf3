"""What each method says that it trains, by the names of transformers and PEFT."""

from __future__ import annotations

import re
from collections.abc import Collection

from launcher.planning.matrix import Cell

LAYERS = 2  # of the test's model

_ADAPTERS = {
    "lora": r"\.lora_(A|B)\.",
    "prefix_tuning": r"\bprompt_encoder\.",
    "p_tuning_v2": r"\bprompt_encoder\.",
    "prompt_tuning": r"\bprompt_encoder\.",
    "llama_adapter": r"\badaption_(prompt|gate)\b",
    "ia3": r"\.ia3_l\.",
}
_OPTIONS = {
    "dora": r"\.lora_magnitude_vector\.",
    "modules_to_save": r"\blm_head\.modules_to_save\.",
    "trainable_tokens": r"\btrainable_tokens_delta\.",
    "head": r"^lm_head\.",
    "last_layers": rf"^model\.layers\.{LAYERS - 1}\.",
    "extra_layers": rf"^model\.layers\.{LAYERS}\.",
}


def trained(cell: Cell, names: Collection[str]) -> set[str]:
    """Those of the model's parameters that the cell's method declares trained."""
    if cell.method == "full":
        return set(names)
    patterns = [_OPTIONS[option] for option in sorted(cell.options) if option in _OPTIONS]
    patterns += [_ADAPTERS[cell.method]] if cell.method in _ADAPTERS else []
    return {name for name in names if any(re.search(pattern, name) for pattern in patterns)}
