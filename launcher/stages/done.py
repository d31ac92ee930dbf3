"""Whether a stage has nothing left to do."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from artifacts.contract import ModelParams, Plan, StageKind, StagePlan
from artifacts.manifest import Manifest, read_marker
from artifacts.store import Store, StoreError, file_uri_path
from launcher.errors import SlipwayError

#: Patience with a remote store for a plan, which is shown without it too.
ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """Kinds of a plan's stages that are complete, in its order; None where the store gave no answer, and
    `why` not."""

    complete: list[StageKind] | None
    why: str = ""


def ask(plan: Plan, store: Store, timeout_s: float = ASK_TIMEOUT_S) -> Answer:
    """Which stages are complete, for what is shown and not acted on: never fails, never waits long.

    A remote store is asked of all stages at once. Requests that have no answer in time are left behind."""
    if not is_remote(store):
        return Answer([stage.kind for stage in plan.stages if is_done(stage, store)])
    answers: queue.Queue[tuple[StageKind, bool | BaseException]] = queue.Queue()

    def look(stage: StagePlan) -> None:
        try:
            answers.put((stage.kind, is_done(stage, store)))
        except BaseException as error:  # whatever it is, the plan can be shown
            answers.put((stage.kind, error))

    for stage in plan.stages:
        threading.Thread(target=look, args=(stage,), daemon=True).start()
    done, deadline = set(), time.monotonic() + timeout_s
    for _ in plan.stages:
        try:
            kind, found = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return Answer(None, f"the store gave no answer in {timeout_s:g} s")
        if isinstance(found, BaseException):
            said = (
                str(found)
                if isinstance(found, SlipwayError | StoreError)
                else f"{type(found).__name__}: {found}"
            )
            return Answer(None, said)
        if found:
            done.add(kind)
    return Answer([stage.kind for stage in plan.stages if stage.kind in done])


def is_done(stage: StagePlan, store: Store) -> bool:
    """Its artifact is complete. A model that is used in place must still be where its marker points, at
    the place that this plan names; a folder of this machine is none where others read the store."""
    manifest = read_marker(store, stage.output)
    if manifest is None or manifest.location is None:
        return manifest is not None
    if is_remote(store):
        return file_uri_path(manifest.location) is None
    params = stage.params
    if isinstance(params, ModelParams) and params.source == "folder":
        return manifest.location == Path(params.location or "").as_uri() and _lies_there(manifest)
    return _lies_there(manifest)


def is_remote(store: Store) -> bool:
    """Whether other machines work with it, so that no path of this one is of any use to them."""
    return store.local_path("") is None


def _lies_there(manifest: Manifest) -> bool:
    """Every file is there in its size. What it holds was checked when the marker was written."""
    folder = file_uri_path(manifest.location or "")
    if folder is None:
        return True
    try:
        return all((folder / file.path).stat().st_size == file.size_bytes for file in manifest.files)
    except OSError:
        return False
