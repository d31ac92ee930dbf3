"""Made-up runs that are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.contract import StageKind
from artifacts.local import LocalStore
from launcher.compare.runs import Run, lettered, read
from tests.launcher.synthetic_run import RUN_ID, write_run

OTHER_ID = "harbour-bot-5e6f7a8b"
THIRD_ID = "harbour-bot-9c8d7e6f"


def write_pair(folder: Path, *, products: bool = False) -> None:
    """A run, and one with another learning rate that answers worse."""
    until = StageKind.PUBLISH if products else StageKind.PREDICT
    write_run(folder, until=until, products=products, wrong_every=12)
    other = {"learning_rate": 1e-3}
    write_run(folder, until=until, products=products, run_id=OTHER_ID, other=other, wrong_every=3)


def pair(folder: Path, *, products: bool = False) -> list[Run]:
    write_pair(folder, products=products)
    return runs_of(folder, RUN_ID, OTHER_ID)


def with_another(folder: Path, **options: Any) -> list[Run]:
    """The run, and another that is written with these options."""
    write_run(folder)
    write_run(folder, run_id=OTHER_ID, **options)
    return runs_of(folder, RUN_ID, OTHER_ID)


def runs_of(folder: Path, *run_ids: str) -> list[Run]:
    store = LocalStore(folder)
    return lettered([("local", read(store, run_id)) for run_id in run_ids])
