"""What only this machine can do before a cluster carries on: image, data files, models in folders.

In the plan's order, each skipped when its artifact is complete, straight into the store. What is told of it
lies among the run's events, so that `status` and boards show it as any other stage.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from artifacts.contract import ModelParams, Plan, StageKind, StagePlan
from artifacts.events import Events
from artifacts.manifest import MARKER, is_complete, read_marker
from artifacts.store import Store
from launcher.backends.locks import FileLock
from launcher.digests import Digests
from launcher.errors import ClusterError, SlipwayError
from launcher.plan import DIGESTS
from launcher.stages import data_run, in_place, model_upload
from launcher.stages.done import is_done
from launcher.stages.pods import runs_in_cluster

#: Builds and pushes the images of a stage `image`, and commits its artifact.
MakeImage = Callable[[StagePlan, Events], object]

_TELL_EVERY_S = 0.5
_LOCK_POLL_S = 0.5


def needs_laptop(plan: Plan, store: Store) -> list[StagePlan]:
    """The stages that have something to do which no pod can: it takes this checkout or files of this machine.
    Empty once `slipway stage` (or `submit`) has been through."""
    return [stage for stage in plan.stages if _is_local(stage) and not _is_staged(stage, store)]


def stage_local_inputs(
    plan: Plan, run_id: str, store: Store, work: Path, *, image: MakeImage
) -> list[StagePlan]:
    """Do what `needs_laptop` lists; returns the stages that had something to do.

    Cheap to repeat: what is complete costs one small read. Of several at once on this machine the later ones
    wait for the first. `work` is the profile's folder for scratch files. Raises UserError (a data record, a
    file that changed), ClusterError, and what `image` raises.
    """
    digests = Digests(work / DIGESTS)
    todo = needs_laptop(plan, store)
    for stage in todo:
        lock = FileLock(work / "locks" / f"{stage.kind.folder}-{stage.key}.lock")
        try:
            _wait_for(lock)
            if not _is_staged(stage, store):
                _carry_out(stage, store, Events(store, run_id, stage.kind), digests, image)
        finally:
            lock.close()
            digests.save()
    _mark_remote_models(plan, store, digests)
    return todo


def _is_local(stage: StagePlan) -> bool:
    if isinstance(stage.params, ModelParams):
        return in_place.on_this_machine(stage.params)
    return not runs_in_cluster(stage)


def _is_staged(stage: StagePlan, store: Store) -> bool:
    """Complete, or (a rehearsal's twin, which a pod makes) all that it is made after is in the store."""
    if is_done(stage, store):
        return True
    made_after_original = isinstance(stage.params, ModelParams) and stage.params.twin is not None
    return made_after_original and is_complete(store, model_upload.uploaded_prefix(stage))


def _carry_out(stage: StagePlan, store: Store, events: Events, digests: Digests, image: MakeImage) -> None:
    """Make the stage's artifact in this process, telling the events."""
    events.say("started", pid=os.getpid())
    try:
        if stage.kind == StageKind.IMAGE:
            image(stage, events)
        elif stage.kind == StageKind.DATA:
            data_run.run(stage, store, events)
            _require_whole(store, stage.output)
        else:
            model_upload.upload(stage, store, digests, _Throttled(events))
            _require_whole(store, model_upload.uploaded_prefix(stage))
    except SlipwayError as error:
        events.say("failed", cause=str(error), advice="")
        raise
    except BaseException as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        events.say("failed", cause=cause, advice="", detail=traceback.format_exc())
        raise
    events.say("finished")


def _require_whole(store: Store, prefix: str) -> None:
    """Another machine that staged the same and gave up may have cleared files of ours away."""
    manifest = read_marker(store, prefix)
    sizes = {info.key: info.size_bytes for info in store.list(prefix)}
    if manifest is None or any(
        sizes.get(f"{prefix}/{entry.path}") != entry.size_bytes for entry in manifest.files
    ):
        store.delete(f"{prefix}/{MARKER}")
        raise ClusterError(prefix, "somebody else removed files of it meanwhile", "submit again")


def _mark_remote_models(plan: Plan, store: Store, digests: Digests) -> None:
    """A model or adapter that lies in another remote store needs but a marker: not worth a pod."""
    for stage in plan.stages:
        taken = in_place.is_taken(stage) and stage.params.source == "store"
        if taken and not is_done(stage, store):
            in_place.commit(stage, store, digests)


def _wait_for(lock: FileLock) -> None:
    while not lock.acquire():
        time.sleep(_LOCK_POLL_S)


class _Throttled:
    """Progress of an upload as events, twice a second at most and at its end."""

    def __init__(self, events: Events) -> None:
        self._events, self._told_at = events, 0.0

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S or done_bytes == total_bytes:
            self._told_at = now
            self._events.progress(done_bytes, total_bytes, "bytes")
