"""What changes a stage's code digest, tried on a small copy of the layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.contract import StageKind
from launcher.stages.code import ENTRIES, LIBRARIES, LOCKS, ROOT, CodeDigests, locked_versions

PREPARE = """\
'Docs.'
from train.data import packing

def run(context):
    return packing.pack(1)
"""
PACKING = """\
def pack(x):
    import train.data.bins
    return x
"""
MERGE = """\
import artifacts.manifest
import importlib

def run(context):
    importlib.import_module('train.shapes')
"""
LOCK = """\
torch==2.15.0 \\
    --hash=sha256:00
tokenizers==0.22.1 ; x
peft==0.21.2
"""
SOURCES = {
    "train/prepare.py": PREPARE,
    "train/data/__init__.py": "",
    "train/data/packing.py": PACKING,
    "train/data/bins.py": "SIZE = 1\n",
    "train/merge.py": MERGE,
    "train/shapes.py": "RANK = 2\n",
    "train/stage.py": "X = 1\n",
    "artifacts/manifest.py": "Y = 1\n",
    "launcher/plan.py": "Z = 1\n",
    "requirements/train.lock": LOCK,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def changed_by(root: Path, name: str, text: str) -> set[StageKind]:
    """The stages whose digest changes when the file `name` gets the text."""
    kinds = (StageKind.PREPARE, StageKind.TRAIN, StageKind.MERGE)
    before = {kind: CodeDigests(root=root)(kind) for kind in kinds}
    (root / name).write_text(text)
    return {kind for kind in kinds if CodeDigests(root=root)(kind) != before[kind]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train/prepare.py", "# why\n" + PREPARE.replace("Docs", "Other docs")),
        ("train/prepare.py", PREPARE.replace("packing.pack(1)", "(\n packing.pack( 1 ))")),
        ("train/data/packing.py", PACKING.replace("def pack(x):", "def pack(x):\n    'What.'")),
        ("train/stage.py", "X = 2\n"),  # how stages are started
        ("artifacts/manifest.py", "Y = 2\n"),  # how files are written
        ("launcher/plan.py", "Z = 2\n"),
    ],
)
def test_changes_no_stage(root: Path, name: str, text: str) -> None:
    assert changed_by(root, name, text) == set()


@pytest.mark.parametrize(
    ("name", "text", "kinds"),
    [
        ("train/prepare.py", PREPARE.replace("(1)", "(2)"), {StageKind.PREPARE}),
        ("train/data/bins.py", "SIZE = 2\n", {StageKind.PREPARE}),  # imported by an import, in a function
        ("train/shapes.py", "RANK = 4\n", {StageKind.MERGE}),  # imported by name
        ("requirements/train.lock", LOCK.replace("0.22.1", "0.23"), {StageKind.PREPARE}),
        ("requirements/train.lock", LOCK.replace("0.21.2", "1"), {StageKind.TRAIN, StageKind.MERGE}),
        ("requirements/train.lock", LOCK + "ray==3\n", set()),
    ],
)
def test_changes_the_stages_that_run_it(root: Path, name: str, text: str, kinds: set[StageKind]) -> None:
    assert changed_by(root, name, text) == kinds


def test_lists_the_sources_of_a_stage(root: Path) -> None:
    names = ["train.data", "train.data.bins", "train.data.packing", "train.prepare"]
    assert list(CodeDigests(root=root).sources(StageKind.PREPARE)) == names


def test_entries_are_the_modules_that_run() -> None:
    from train.__main__ import MODULES

    processes = {kind.value: entry for kind, entry in ENTRIES.items() if entry.startswith("train.")}
    assert processes == MODULES
    digests = CodeDigests()
    assert "train.loop" in digests.sources(StageKind.TRAIN)
    assert "artifacts.records" in digests.sources(StageKind.DATA)
    assert digests(StageKind.ORIGINAL) == digests(StageKind.MODEL)
    assert len({digests(kind) for kind in ENTRIES}) == len(ENTRIES) - 1


def test_libraries_are_locked() -> None:
    locked = {name for lock in LOCKS for name in locked_versions(ROOT / lock)}
    assert {name for names in LIBRARIES.values() for name in names} <= locked
