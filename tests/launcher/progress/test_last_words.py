"""`launcher.progress.last_words`: the newest failure of this stage, of this attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.contract import PrepareParams, StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from launcher.progress.last_words import last_words
from tests import plan_parts


def test_only_this_attempt_of_this_stage_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    stage = plan_parts.stage(StageKind.PREPARE, PrepareParams(max_length=64, packing=True))
    assert last_words(store, "run", stage, 0.0) == ("", "")
    for time_s, kind, cause in (
        (100, "prepare", "old"),
        (200, "prepare", "new"),
        (300, "train", "another's"),
    ):
        monkeypatch.setattr("time.time", lambda time_s=time_s: time_s)
        Events(store, "run", kind).say("failed", cause=cause, advice="mend it")
    assert last_words(store, "run", stage, 0.0) == ("new", "mend it")
    assert last_words(store, "run", stage, 200.0) == ("new", "mend it")
    assert last_words(store, "run", stage, 201.0) == ("", "")
