"""What an API server (Kubernetes 1.34, KubeRay 1.6.2) answered for stages in each state, cut to what is read.

`object`: the Job or RayJob; `pods`; `events`: the newest warning of each reason."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from launcher.backends.waiting import Object

_FOLDER = Path(__file__).with_name("answers")


@cache
def _read(file: str) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads((_FOLDER / f"{file}.json").read_text())
    return answers


def answer(file: str, name: str) -> tuple[Object, list[Object], list[Object]]:
    """Object, pods and events of one case, to change at will."""
    case = copy.deepcopy(_read(file)[name])
    return case["object"], case["pods"], case["events"]
