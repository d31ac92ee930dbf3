from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan
from launcher import plan
from launcher.digests import Digests
from launcher.machine import Machine
from launcher.planning.matrix import Cell
from launcher.spec.load import load_cluster, load_job
from tests.launcher.plans import GIB, fixed_code, write_data
from tests.matrix import bases, cells
from tests.matrix.pool import Pool

Planner = Callable[..., Plan]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    bases.write(folder)
    return folder


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[int, Pool]]:
    """One rank that stays, and two."""
    made = {count: Pool(count) for count in (1, cells.RANKS)}
    yield made
    for pool in made.values():
        pool.close()


@pytest.fixture(scope="session")
def make_plan(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Planner:
    """The plan of a cell's job on a machine without GPUs; `sections` replaces some of the job's."""
    folder = tmp_path_factory.mktemp("jobs")
    write_data(folder)
    (folder / "local.yaml").write_text(f"backend: local\nstore: {folder}/store\nwork: {folder}/work\n")
    profile, digests = load_cluster(str(folder / "local.yaml")), Digests()
    machine = Machine(cores=2, memory_bytes=8 * GIB)

    def make(cell: Cell, **sections: Any) -> Plan:
        model = "gptq" if cell.quantization == "gptq" else "model"
        job = {
            "name": "cell",
            "model": {"folder": str(root / model)},
            "data": {"train": "train.jsonl"},
            **cells.sections(cell),
            **sections,
        }
        (folder / "job.yaml").write_text(json.dumps(job))
        return plan.make(load_job(folder / "job.yaml"), profile, machine, code=fixed_code, digests=digests)

    return make
