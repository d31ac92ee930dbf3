"""One line of `slipway doctor`: what was looked at, how it stands, and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from launcher.errors import ClusterError

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Check:
    """`found`: how it stands, in a line. `way_out`: what to do about a warning or failure, a command where
    there is one."""

    what: str
    level: Level
    found: str
    way_out: str = ""


def ok(what: str, found: str) -> Check:
    return Check(what, "ok", found)


def warning(what: str, found: str, way_out: str = "") -> Check:
    return Check(what, "warning", found, way_out)


def failure(what: str, found: str, way_out: str = "") -> Check:
    return Check(what, "failure", found, way_out)


def require(checks: Iterable[Check]) -> None:
    """Raises ClusterError for the first failure: those after it often only follow from it."""
    for check in checks:
        if check.level == "failure":
            raise ClusterError(check.what, check.found, check.way_out)
