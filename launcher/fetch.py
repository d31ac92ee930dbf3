"""Copies of a run's products, each byte checked against the manifest on its way."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from artifacts.contract import Plan, StageKind
from artifacts.manifest import FileEntry, file_source, hash_file, read_marker
from artifacts.store import Store
from launcher.errors import Problem, RunFailed, UserError, of_os_error

#: What people ask for, and the stage that leaves it. `adapter` is what training left (method full: a model).
PRODUCTS = {
    "merged": StageKind.MERGE,
    "adapter": StageKind.TRAIN,
    "quantized": StageKind.QUANTIZE,
    "gguf": StageKind.GGUF,
    "predictions": StageKind.PREDICT,
    "prepared": StageKind.PREPARE,
    "data": StageKind.DATA,
    "model": StageKind.MODEL,
}
_BLOCK_BYTES = 4 * 1024 * 1024


def product(plan: Plan, store: Store, name: str | None) -> str:
    """The prefix of a product that is complete: by default the merged model, else the adapter; of a run that
    was asked for one product alone, that.

    Raises UserError."""
    kinds = {stage.kind: stage.output for stage in plan.stages}
    if name is None:
        name = _default(plan)
    if name not in PRODUCTS:
        raise UserError(
            Problem(where="", what=name, why="no such product", way_out=f"one of {', '.join(PRODUCTS)}")
        )
    if PRODUCTS[name] not in kinds:
        raise UserError(
            Problem(
                where="",
                what=name,
                why="this run makes none",
                way_out=f"add {PRODUCTS[name]} to `after` in the job and submit it: nothing is trained again",
            )
        )
    prefix = kinds[PRODUCTS[name]]
    if read_marker(store, prefix) is None:
        raise UserError(Problem(where="", what=name, why="not complete yet", way_out="`slipway status RUN`"))
    return prefix


def _default(plan: Plan) -> str:
    if plan.job.get("command"):
        return next(name for name, kind in PRODUCTS.items() if kind == plan.stages[-1].kind)
    return "merged" if plan.has(StageKind.MERGE) else "adapter"


def fetch(store: Store, prefix: str, to: Path) -> int:
    """Copy an artifact's files into the folder `to`, which must not be there yet or be empty.

    Returns the bytes copied. The folder appears whole or not at all. Raises UserError for the folder,
    RunFailed for a file that is not what the manifest says.
    """
    require_free(to)
    manifest = read_marker(store, prefix)
    assert manifest is not None, f"{prefix} is not complete"
    source, before = file_source(store, prefix, manifest)
    with _appearing(to) as folder:
        for entry in manifest.files:
            _copy(source, f"{before}{entry.path}", entry, folder / entry.path)
    return manifest.size_bytes


def holds(store: Store, prefix: str, folder: Path) -> bool:
    """Whether the folder is a copy of the artifact, to the byte, with nothing beside it."""
    manifest = read_marker(store, prefix)
    if manifest is None or not folder.is_dir():
        return False
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if sizes != {entry.path: entry.size_bytes for entry in manifest.files}:
        return False
    return all(hash_file(files[entry.path])[1] == entry.sha256 for entry in manifest.files)


def require_free(to: Path) -> None:
    """Raises UserError unless a copy can become the folder `to`."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(
            Problem(where="", what=str(to), why="is not an empty folder", way_out="name another one")
        )


def fetch_object(store: Store, key: str, to: Path) -> int:
    """Copy one object to the file `to`, which must not be there yet. Returns its bytes. Raises UserError."""
    content = store.read_bytes(key)
    with writing(to), to.open("xb") as target:
        target.write(content)
    return len(content)


def _copy(store: Store, key: str, entry: FileEntry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with store.open_read(key) as source, path.open("xb") as target:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != entry.sha256:
        raise RunFailed(
            "fetch", f"{key} is damaged: its SHA-256 differs", "`slipway verify RUN` shows all", key
        )


@contextlib.contextmanager
def writing(to: Path) -> Iterator[None]:
    """Failures of the block mean that `to` can't be written: UserError, ClusterError for a full disk."""
    try:
        yield
    except OSError as error:
        raise of_os_error(OSError(error.errno, error.strerror, str(to))) or error from error


@contextlib.contextmanager
def _appearing(to: Path) -> Iterator[Path]:
    """A folder beside `to` that takes its place when the block ends well."""
    folder = to.with_name(f".{to.name}.partial-{uuid.uuid4().hex[:8]}")
    with writing(to):
        folder.mkdir(parents=True)
    try:
        yield folder
        folder.replace(to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
