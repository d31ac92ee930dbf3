"""What a planner has decided for a job so far, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from artifacts.contract import Derived
from launcher.errors import Problem
from launcher.planning.hardware import Hardware
from launcher.spec.job import Job
from launcher.spec.load import Loaded


@dataclass
class Findings:
    """Collects the values that `loaded` leaves open, with their reasons, and every problem at once."""

    loaded: Loaded[Job]
    hardware: Hardware
    derived: list[Derived] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def job(self) -> Job:
        return self.loaded.value

    def say(self, field: str, value: Any, reason: str) -> None:
        self.derived.append(Derived(field=field, value=value, reason=reason))

    def refuse(self, field: str, value: Any, why: str, way_out: str = "") -> None:
        where = self.loaded.where(field)
        self.problems.append(Problem(where=where, what=f"{field}: {value}", why=why, way_out=way_out))
