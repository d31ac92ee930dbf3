"""The commands as real processes, with stages that only sleep and write."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.launcher.alone.folders import write_adapter
from tests.launcher.driving import wait_for
from tests.launcher.plans import write_model
from tests.launcher.test_cli import Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("alone"))
    write_adapter(desk.folder / "adapter", str(write_model(desk.folder / "base")))
    yield desk
    wait_for(lambda: not desk.pilots.alive_runs(), 60)


def test_a_command_is_a_run_like_any_other(desk: Desk) -> None:
    said = desk.slipway("merge", "adapter", "--to", "merged")
    run_id = re.search(r"started (merge-adapter-[0-9a-f]{8}) on local: model → adapter → merge\n", said)[1]  # type: ignore[index]
    assert re.search(r"copy    merged\n", said)
    assert (desk.folder / "merged/made-by.txt").read_text() == "merge"
    again = desk.slipway("merge", "./adapter", "--to", "merged")
    assert f"{run_id} on local: every stage is complete" in again and desk.ledger() == ["merge"]
    desk.slipway("fetch", "merge-adapter", "--to", "fetched")
    assert (desk.folder / "fetched/made-by.txt").read_text() == "merge"
    assert not list(desk.work.glob("runs/*/logs/host.log"))  # nothing is trained


def test_a_copy_that_has_no_place_is_told_before_anything_begins(desk: Desk) -> None:
    (desk.folder / "full").mkdir()
    (desk.folder / "full/other.txt").write_text("mine")
    before, smaller = desk.ledger(), "merge.max_shard_size=1GB"  # not merged so yet
    said = desk.slipway("merge", "adapter", "--set", smaller, "--to", "full", code=2)
    assert "error: full: is not an empty folder" in said
    assert desk.ledger() == before
