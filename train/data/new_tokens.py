"""Tokens that the chat template adds to the tokenizer, and which methods learn their embeddings."""

from __future__ import annotations

from collections.abc import Collection

from artifacts.contract import Method
from train.stage import StageUserError

#: The others leave embeddings as they are.
LEARNING: tuple[Method, ...] = ("full", "lora")


def require_learnable(added: Collection[str], method: Method | None) -> None:
    """Raises StageUserError where the method (None: nothing is trained) would leave the `added` tokens'
    embeddings untrained."""
    if added and method is None:
        raise StageUserError(
            f"the template adds {', '.join(added)} to the tokenizer, which the model has never seen",
            "use the model's own template",
        )
    if added and method not in LEARNING:
        raise StageUserError(
            f"the template adds {', '.join(added)} to the tokenizer, and {method} does not train embeddings "
            "of new tokens",
            "use method lora or full, or a template whose markers the tokenizer knows",
        )
