"""Stages as objects of a Kubernetes cluster: a RayJob that trains, a Job for any other.

An object's name is made of the stage's key alone, so the API server itself keeps two runs from making one
artifact. An object that has ended belongs to the drive that made it or saw it run: to any other it counts as
absent, and is replaced when that one starts the stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from artifacts.contract import EXIT_DONE, Plan, StageKind, StagePlan
from artifacts.logs import LogReader
from artifacts.store import Store
from launcher.backends import endings, evidence, manifest
from launcher.backends.endings import Ending
from launcher.backends.looks import Looks
from launcher.backends.lost_nodes import LostNodes, unix_s
from launcher.backends.patience import Patience
from launcher.backends.pods import RUN, is_pending, note, pod_facts
from launcher.errors import ClusterError
from launcher.kube import Kube, KubeError, Object
from launcher.names import short_key
from launcher.progress.last_words import last_words
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.done import is_done
from launcher.stages.image import Images
from launcher.stages.pods import runs_in_cluster
from launcher.status import Observation

#: Endings that are this backend's judgement: the object itself would go on.
_STILL_THERE = ("never-started", "node-lost")

_LOG_TAIL_LINES = 60
_FOLLOW_POLL_S = 1.0


@dataclass
class _Attempt:
    """A stage's newest attempt, as this drive knows it. `stop_at` is monotonic."""

    patience: Patience
    uid: str = ""  # of its object; empty while that can't be made yet
    stop_at: float | None = None
    deleted: bool = False  # by us
    verdict: Observation | None = None


class KubernetesBackend:
    """`launcher.backends.base.Backend` for one run. `drive_id` is the pilot's: the uid of its Job."""

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        store: Store,
        kube: Kube,
        images: Images,
        drive_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._plan, self._run_id, self._store, self._kube = plan, run_id, store, kube
        self._images, self._drive_id = images, drive_id
        self._clock, self._now = clock, now
        self._limits = KubernetesCluster.model_validate(plan.profile).limits
        self._looks = Looks(kube, (short_key(stage.key) for stage in plan.stages), clock=clock)
        self._lost_nodes = LostNodes(kube, self._looks, now=now)
        self._attempts: dict[str, _Attempt] = {}
        self._judged: set[str] = set()  # uids of objects that this drive has seen end

    # The four methods of a backend ----------------------------------------------------------------------

    def start(self, stage: StagePlan) -> None:
        if not runs_in_cluster(stage):  # it is made where the sources and the data files lie
            way_out = f"`slipway stage JOB --cluster {self._plan.cluster}` makes it"
            raise ClusterError(f"stage {stage.kind}", "its artifact is not in the store", way_out)
        attempt = self._attempts.get(stage.key)
        if attempt is None or attempt.verdict is not None:
            self._attempts[stage.key] = self._attempt()
            self._make(stage)

    def observe(self, stage: StagePlan) -> Observation:
        attempt = self._attempts.get(stage.key)
        if attempt is not None and attempt.verdict is not None:
            return attempt.verdict
        if attempt is not None and not attempt.uid:
            if not self._make(stage):
                return Observation(phase="running", note="waits until its earlier attempt is removed")
            attempt = self._attempts.get(stage.key)
        body = self._looks.find(_kind(stage), manifest.stage_name(stage))
        if attempt is not None and (body is None or body["metadata"]["uid"] != attempt.uid):
            return self._missing(stage, attempt)
        if body is None or body["metadata"]["uid"] in self._judged:
            return self._absent(stage)
        pods = self._looks.pods_of(body)
        end = endings.ending(body, pods)
        if attempt is None:
            if end is not None and not self._of_this_drive(body):
                return self._absent(stage)
            if not self._of_this_run(body):
                return Observation(phase="elsewhere")
            attempt = self._attempts[stage.key] = self._attempt(body["metadata"]["uid"])
        if end is not None:
            return self._ended(stage, attempt, body, pods, end)
        return self._going_on(stage, attempt, body, pods)

    def logs(self, stage: StagePlan, *, follow: bool = False) -> Iterator[str]:
        reader = LogReader(self._store, self._run_id, stage.kind, attempt=-1)
        some = False
        while True:
            going_on = follow and self._is_active(stage)
            for line in reader.poll():
                some = True
                yield line
            if not going_on:
                break
            time.sleep(_FOLLOW_POLL_S)
        if not some:
            yield from self._why_no_log(stage)

    def stop(self, stage: StagePlan, grace_s: float) -> None:
        attempt = self._attempts.get(stage.key)
        if attempt is None or attempt.verdict is not None:
            return
        if not attempt.uid:  # not made yet
            del self._attempts[stage.key]
            return
        attempt.stop_at = self._clock() + grace_s
        if grace_s <= 0:
            self._delete(stage, attempt)

    # Making and removing ----------------------------------------------------------------------------------

    def _make(self, stage: StagePlan) -> bool:
        """Make the stage's object, or attach to the one that is there. False: an ended one is in the way
        until the API server has removed it."""
        body = manifest.stage_object(self._plan, self._run_id, stage, self._images, self._drive_id)
        kind, name = body["kind"], body["metadata"]["name"]
        self._looks.forget(kind)
        for _ in range(2):
            try:
                made = self._kube.create(body)
            except KubeError as error:
                if error.reason != "AlreadyExists":
                    raise
            else:
                self._attempts[stage.key].uid = made["metadata"]["uid"]
                return True
            there = self._kube.get(kind, name)
            if there is not None and not self._in_the_way(there):
                if self._of_this_run(there):
                    self._attempts[stage.key].uid = there["metadata"]["uid"]
                else:
                    del self._attempts[stage.key]
                return True
            if there is not None:
                self._kube.delete(kind, name, uid=there["metadata"]["uid"])
        return False

    def _in_the_way(self, body: Object) -> bool:
        """It is going, or has ended without being this drive's to judge."""
        metadata = body["metadata"]
        if metadata.get("deletionTimestamp") or metadata["uid"] in self._judged:
            return True
        return endings.ending(body, ()) is not None and not self._of_this_drive(body)

    def _delete(self, stage: StagePlan, attempt: _Attempt) -> None:
        attempt.deleted = True
        kind = _kind(stage)
        self._kube.delete(kind, manifest.stage_name(stage), uid=attempt.uid)
        self._looks.forget(kind)

    # What is seen -----------------------------------------------------------------------------------------

    def _absent(self, stage: StagePlan) -> Observation:
        return Observation(phase="absent", committed=is_done(stage, self._store))

    def _missing(self, stage: StagePlan, attempt: _Attempt) -> Observation:
        """A list may be older than what was just made: asked by name, the API server knows for certain."""
        there = self._kube.get(_kind(stage), manifest.stage_name(stage))
        if there is not None and there["metadata"]["uid"] == attempt.uid:
            return Observation(phase="running")
        del self._attempts[stage.key]
        if attempt.deleted:
            return self._absent(stage)
        return Observation(
            phase="ended",
            ended_by="deleted",
            committed=is_done(stage, self._store),
            cause=f"{_kind(stage)} {manifest.stage_name(stage)} is gone",
        )

    def _going_on(
        self, stage: StagePlan, attempt: _Attempt, body: Object, pods: Sequence[Object]
    ) -> Observation:
        if attempt.deleted or body["metadata"].get("deletionTimestamp"):
            lost = self._lost_nodes.notice(pods)
            return Observation(phase="running", note=lost.note or "its pods are being stopped")
        if attempt.stop_at is not None:
            if not endings.can_save(body, pods) or self._clock() >= attempt.stop_at:
                self._delete(stage, attempt)
            return Observation(phase="running", note="asked to save and stop")
        if paused := endings.pause(body):
            said = endings.queue_says(body, self._looks.of_queue())
            return Observation(phase="running", note=f"{paused}: {said}" if said else paused)
        lost = self._lost_nodes.notice(pods)
        if lost.removed and body["kind"] == "Job":
            end = Ending(None, "node-lost", f"node {lost.node} is not ready")
            return self._ended(stage, attempt, body, pods, end)
        facts = pod_facts(pods, self._looks.warnings(_silent(body, pods)))
        told = attempt.patience.lasting(facts)
        if overdue := attempt.patience.end(pods, told):
            return self._ended(stage, attempt, body, pods, overdue)
        return Observation(phase="running", note=lost.note or note(told))

    def _ended(
        self, stage: StagePlan, attempt: _Attempt, body: Object, pods: Sequence[Object], end: Ending
    ) -> Observation:
        """The verdict, given once; what was made is removed where somebody asked the run to stop."""
        committed, where, said, output = is_done(stage, self._store), "", ("", ""), ""
        if end.exit_code != EXIT_DONE or not committed:
            where = evidence.save(self._store, self._kube, self._run_id, stage.kind, body, pods)
            said = last_words(self._store, self._run_id, stage, _made_s(body))
            output = "\n".join(self._tail(stage)) or end.output
        seen = (end.cause, end.advice)
        cause, advice = seen if end.ended_by else (said[0] or seen[0], said[1] or seen[1])
        attempt.verdict = Observation(
            phase="ended",
            exit_code=end.exit_code,
            ended_by=end.ended_by,
            committed=committed,
            cause=cause,
            advice=advice,
            output=output,
            evidence=where,
        )
        self._judged.add(attempt.uid)
        if attempt.stop_at is not None or end.ended_by in _STILL_THERE:
            self._delete(stage, attempt)
        return attempt.verdict

    # ------------------------------------------------------------------------------------------------------

    def _attempt(self, uid: str = "") -> _Attempt:
        return _Attempt(Patience(self._limits.pending_s, self._clock, self._now), uid)

    def _of_this_run(self, body: Object) -> bool:
        return bool((body["metadata"].get("labels") or {}).get(RUN) == self._run_id)

    def _of_this_drive(self, body: Object) -> bool:
        drive = (body["metadata"].get("annotations") or {}).get(manifest.DRIVE)
        return self._of_this_run(body) and drive == self._drive_id

    def _is_active(self, stage: StagePlan) -> bool:
        body = self._looks.find(_kind(stage), manifest.stage_name(stage))
        return body is not None and endings.ending(body, ()) is None

    def _tail(self, stage: StagePlan) -> list[str]:
        return LogReader(self._store, self._run_id, stage.kind, attempt=-1).poll()[-_LOG_TAIL_LINES:]

    def _why_no_log(self, stage: StagePlan) -> Iterator[str]:
        """For a container that never wrote anything: what its pods wait for, or how they ended."""
        body = self._looks.find(_kind(stage), manifest.stage_name(stage))
        pods = self._looks.pods_of(body) if body else []
        names = _silent(body, pods) if body else []
        for fact in pod_facts(pods, self._looks.warnings(names)):
            if words := fact.waiting or fact.past:
                yield f"{fact.name}: {words}" + (f"; {fact.advice}" if fact.advice else "")


def _kind(stage: StagePlan) -> str:
    return "RayJob" if stage.kind == StageKind.TRAIN else "Job"


def _silent(body: Object, pods: Sequence[Object]) -> list[str]:
    """Names of objects whose state alone does not say why they wait; their events do."""
    names = [pod["metadata"]["name"] for pod in pods if is_pending(pod) and pod["spec"].get("nodeName")]
    cluster = body.get("status", {}).get("rayClusterName")
    makes_pods = cluster if body["kind"] == "RayJob" else body["metadata"]["name"]
    wanted = _workers_wanted(body) + 1 if body["kind"] == "RayJob" else 1
    return [*names[:1], *([makes_pods] if makes_pods and len(pods) < wanted else [])]


def _workers_wanted(ray_job: Object) -> int:
    groups = ray_job["spec"]["rayClusterSpec"].get("workerGroupSpecs") or ()
    return sum(int(group.get("replicas", 0)) for group in groups)


def _made_s(body: Object) -> float:
    """When it was made, by the API server's clock (Unix time)."""
    return unix_s(body["metadata"]["creationTimestamp"])
