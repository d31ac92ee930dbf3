from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, TrainParams
from launcher import plan
from launcher.digests import Digests
from launcher.machine import Machine
from launcher.planning.matrix import Cell
from launcher.spec.load import load_cluster, load_job
from tests.launcher.plans import GIB, H100, fixed_code, write_data
from tests.matrix import bases, cells
from tests.matrix.pool import Pool

Planner = Callable[..., Plan]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    bases.write(folder)
    return folder


class Pools:
    """Ranks for one way to hold the base at a time: what PEFT finds of quantization libraries is settled in a
    process when it first asks."""

    def __init__(self) -> None:
        self._quantization = ""
        self._pools: dict[int, Pool] = {}

    def run(self, params: TrainParams, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """`function(*arguments)` on as many ranks as `params` say."""
        if params.quantization != self._quantization:
            self.close()
            self._quantization = params.quantization
        pool = self._pools.setdefault(params.world_size, Pool(params.world_size))
        return pool.run(function, *arguments)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools = {}


@pytest.fixture(scope="session")
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


@pytest.fixture(scope="session")
def make_plan(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Planner:
    """The plan of a cell's job, on a machine with or without GPUs, over `ranks` workers at most."""
    folder = tmp_path_factory.mktemp("jobs")
    write_data(folder)
    (folder / "local.yaml").write_text(f"backend: local\nstore: {folder}/store\nwork: {folder}/work\n")
    profile, digests = load_cluster(str(folder / "local.yaml")), Digests()

    def make(cell: Cell, ranks: int = cells.RANKS) -> Plan:
        gpus = (H100,) * ranks if cell.device == "gpu" else ()
        machine = Machine(cores=2, memory_bytes=8 * GIB, gpus=gpus)
        model = "gptq" if cell.quantization == "gptq" else "model"
        job = {
            "name": "cell",
            "model": {"folder": str(root / model)},
            "data": {"train": "train.jsonl"},
            **cells.sections(cell, ranks),
        }
        (folder / "job.yaml").write_text(json.dumps(job))
        return plan.make(load_job(folder / "job.yaml"), profile, machine, code=fixed_code, digests=digests)

    return make
