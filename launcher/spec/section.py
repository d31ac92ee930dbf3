"""What every section of a job file or cluster profile has in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# pydantic would look through every installed distribution for plugins (30 ms); none may change our checks.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Conflict:
    """Fields (relative to the section that declares the conflict) that don't go together, and why.

    They are dotted, or tuples where a key of a mapping may hold dots itself. The message stands at the first
    of them that the file has. It is left out while one of them is wrong by itself."""

    fields: tuple[str | tuple[str | int, ...], ...]
    why: str
    way_out: str = ""


class Section(BaseModel):
    """Unknown keys are refused, an empty value (`key:`) means left out, types are never converted, values
    never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between fields that are each right by themselves."""
        return iter(())

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            key: value for key, value in values.items() if value is not None or key not in cls.model_fields
        }

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Section:
        if found := list(self.conflicts()):
            text = "; ".join(f"{', '.join(map(str, conflict.fields))}: {conflict.why}" for conflict in found)
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": found})
        return self

    def given(self, *fields: str) -> list[str]:
        """Those of `fields` that the user wrote, whatever their value."""
        return [name for name in fields if name in self.model_fields_set]
