"""Stage `image`: the container images that all other stages run in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Images:
    """References by digest."""

    pilot: str
    train: str
