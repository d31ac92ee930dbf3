"""`launcher.checkpoints`: which checkpoints are there, and which are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from launcher.checkpoints import list_checkpoints, newest_step

PREFIX = "train/abc"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Steps 5 and 10 complete, 10 in two attempts, 15 cut off; metrics and the final artifact beside them."""
    store = LocalStore(tmp_path)
    for step, attempt in ((5, 1), (10, 1), (10, 2)):
        writer = ArtifactWriter(store, f"{PREFIX}/checkpoint-{step}-{attempt}")
        writer.write_bytes("adapter.safetensors", b"w" * step)
        writer.write_bytes("rank-0/optimizer.pt", b"o" * step)
        writer.commit()
    store.write_bytes(f"{PREFIX}/checkpoint-15-2/adapter.safetensors", b"w" * 3)
    store.write_bytes(f"{PREFIX}/metrics/attempt-001-000000.jsonl", b"{}\n")
    ArtifactWriter(store, f"{PREFIX}/final").commit()
    return store


def test_lists_by_step_and_attempt(store: LocalStore) -> None:
    found = list_checkpoints(store, PREFIX)
    assert [(c.step, c.attempt, c.state) for c in found] == [
        (5, 1, "complete"),
        (10, 1, "complete"),
        (10, 2, "complete"),
        (15, 2, "partial"),
    ]
    assert found[3].size_bytes == 3 and found[0].size_bytes > 10
    assert newest_step(store, PREFIX) == 10
    assert newest_step(store, "train/none") == -1
