"""Pilots on a Kubernetes cluster, seen from a laptop: a small Job per run, which needs nobody outside.

The Job's name is the lock: the API server makes one of that name, however many ask for it. What a run is made
of carries its id as a label, and that is how it is found again.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from artifacts.contract import Plan, StageKind, StagePlan
from artifacts.events import Events
from artifacts.manifest import is_complete
from artifacts.store import Store
from launcher import staging
from launcher.backends import manifest
from launcher.backends.pods import RUN, STAGE, PodFact, note, pod_facts
from launcher.doctor import preflight
from launcher.errors import ClusterError, Problem, UserError
from launcher.kube import Kube, KubeError, Object, condition
from launcher.pilots.base import Dashboard, Row
from launcher.pilots.stored_logs import StoredLogs
from launcher.progress.journal import local_user
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.image import Images, read_images
from launcher.stages.pods import runs_in_cluster

#: Label of a pilot's Job: who started it. Beside the plan, so that the same job by two people is one run.
USER_LABEL = "slipway/user"

#: What may be left of a run, in the order in which it is removed: whoever makes things goes first. The
#: pilot's Lease goes with its Job.
_KINDS = ("Job", "RayJob", "ConfigMap", "NetworkPolicy")

_LAST_WORDS_LINES = 20
_CREATE_ATTEMPTS, _CREATE_PAUSE_S = 40, 0.5  # an ended Job of the name has to go first, with its pods


class KubernetesPilots:
    """`launcher.pilots.base.Pilots` for one profile. `cluster`: its name, for messages; `connect` is called
    when the API server is needed for the first time."""

    poll_s = 1.0

    def __init__(
        self,
        cluster: str,
        store: Store,
        profile: KubernetesCluster,
        *,
        connect: Callable[[], Kube] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cluster, self._store, self._profile, self._sleep = cluster, store, profile, sleep
        self._connect = connect or (lambda: Kube.connect(profile.namespace, profile.context))

    @functools.cached_property
    def kube(self) -> Kube:
        return self._connect()

    # Starting -----------------------------------------------------------------------------------------------

    def require_cluster(self, command: str) -> None:
        """This is one."""

    def require_ready(self) -> None:
        """The context, the namespace, KubeRay, what the profile names, and the bucket."""
        preflight(self._profile, self.kube, self._store)

    def stage(self, plan: Plan, run_id: str, say: Callable[[str], None]) -> None:
        from launcher.images.build import build_images

        def make_image(stage: StagePlan, events: Events) -> None:
            build_images(stage, self._profile, self._store, say)

        staging.stage_local_inputs(plan, run_id, self._store, self._profile.work_folder, image=make_image)

    def objects(self, plan: Plan, run_id: str, stage: str | None = None) -> list[Object]:
        images = self._images(plan)
        if missing := staging.needs_laptop(plan, self._store):
            raise self._not_staged(", ".join(stage.kind for stage in missing))
        if stage is None:
            return manifest.run_objects(plan, run_id, images)
        in_pods = [str(it.kind) for it in plan.stages if runs_in_cluster(it)]
        if stage not in in_pods:
            why, way_out = "no pod carries it out", f"one of {', '.join(in_pods)}"
            raise UserError(Problem(where="", what=f"--stage {stage}", why=why, way_out=way_out))
        wanted = plan.stage(stage)
        absent = [prefix for prefix in wanted.inputs.values() if not is_complete(self._store, prefix)]
        if absent:
            why = f"its inputs are not complete: {', '.join(absent)}"
            way_out = "render the whole run, which makes them"
            raise UserError(Problem(where="", what=f"--stage {stage}", why=why, way_out=way_out))
        return [manifest.plan_config_map(plan, run_id), manifest.stage_object(plan, run_id, wanted, images)]

    def launch(self, plan: Plan, run_id: str) -> bool:
        if self.is_alive(run_id):
            return False
        objects = manifest.run_objects(plan, run_id, self._images(plan))
        (job,) = (body for body in objects if body["kind"] == "Job")
        for body in objects:
            if body is not job:
                self.kube.apply(body)
        job["metadata"].setdefault("labels", {}).update(user_label())
        for _ in range(_CREATE_ATTEMPTS):
            try:
                self.kube.create(job)
                return True
            except KubeError as error:
                if error.reason != "AlreadyExists":
                    raise
            if (there := self._job(run_id)) is not None:
                if is_active(there):
                    return False
                self.kube.delete("Job", job["metadata"]["name"], uid=there["metadata"]["uid"], wait=True)
            self._sleep(_CREATE_PAUSE_S)
        name, space = job["metadata"]["name"], self._profile.namespace
        way_out = f"`kubectl -n {space} delete job {name} --force` removes it"
        raise ClusterError(f"pilot {name}", "an ended one of this name does not go away", way_out)

    def drive(self, run_id: str) -> int:
        why, way_out = "a pod drives the runs of this cluster", f"slipway resume {run_id}"
        raise UserError(Problem(where="", what=f"drive on {self._cluster}", why=why, way_out=way_out))

    # Looking ------------------------------------------------------------------------------------------------

    def is_alive(self, run_id: str) -> bool:
        there = self._job(run_id)
        return there is not None and is_active(there)

    def alive_runs(self) -> list[str]:
        jobs = self.kube.list("Job", labels=f"{STAGE}={manifest.PILOT}")
        return [job["metadata"]["labels"][RUN] for job in jobs if is_active(job)]

    def waiting(self, run_id: str) -> str:
        pods = self._pilot_pods(run_id)
        return note(pod_facts(pods, self._warnings(), [manifest.pilot_name(run_id)]))

    def last_words(self, run_id: str, since_s: float) -> tuple[str, str]:
        pods = sorted(self._pilot_pods(run_id), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        where = f"kubectl -n {self._profile.namespace} logs job/{manifest.pilot_name(run_id)}"
        output = self.kube.pod_log(pods[-1]["metadata"]["name"], tail_lines=_LAST_WORDS_LINES) if pods else ""
        return output, where

    def logs(self, plan: Plan, run_id: str) -> StoredLogs:
        return StoredLogs(self._store, run_id, lambda: self.is_alive(run_id), self.poll_s)

    def members(self, plan: Plan, run_id: str) -> list[Row]:
        """The run's pods: two requests, however many there are."""
        pods = self.kube.list("Pod", labels=f"{RUN}={run_id}")
        names = [manifest.pilot_name(run_id), *map(manifest.stage_name, plan.stages)]
        return [_row(fact) for fact in pod_facts(pods, self._warnings(), names)]

    def dashboard(self, plan: Plan, run_id: str) -> AbstractContextManager[Dashboard]:
        from launcher.pilots.dashboard import open_dashboard

        return open_dashboard(self.kube, run_id)

    # Ending -------------------------------------------------------------------------------------------------

    def clear(self, run_id: str) -> None:
        for kind in _KINDS:
            for body in self.kube.list(kind, labels=f"{RUN}={run_id}"):
                self.kube.delete(kind, body["metadata"]["name"], uid=body["metadata"]["uid"])

    def _pilot_pods(self, run_id: str) -> list[Object]:
        return self.kube.list("Pod", labels=f"{RUN}={run_id},{STAGE}={manifest.PILOT}")

    def _warnings(self) -> list[Object]:
        return self.kube.list("Event", fields="type=Warning")

    def _job(self, run_id: str) -> Object | None:
        return self.kube.get("Job", manifest.pilot_name(run_id))

    def _images(self, plan: Plan) -> Images:
        images = read_images(self._store, plan.stage(StageKind.IMAGE))
        if images is None:
            raise self._not_staged("the image")
        return images

    def _not_staged(self, what: str) -> UserError:
        why, way_out = (
            "not in the cluster's reach yet",
            f"`slipway stage JOB --cluster {self._cluster}` first",
        )
        return UserError(Problem(where="", what=what, why=why, way_out=way_out))


def _row(fact: PodFact) -> Row:
    """One line of `slipway status`."""
    return {
        "STAGE": f"{fact.stage} {fact.role}".strip(),
        "POD": fact.name,
        "NODE": fact.node,
        "STATE": fact.phase,
        "RESTARTS": str(fact.restarts or ""),
        "WHY": "; ".join(filter(None, (fact.waiting or fact.past, fact.advice))),
    }


def is_active(job: Object) -> bool:
    """Whether a Job goes on: it has neither succeeded nor failed, nor is it being deleted."""
    ended = condition(job, "Complete") or condition(job, "Failed")
    return ended is None and "deletionTimestamp" not in job["metadata"]


def user_label() -> dict[str, str]:
    """Who runs this process, in the letters that a label's value may have; nothing where that is unknown."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", local_user())[:63].strip("-_.")
    return {USER_LABEL: name} if name else {}
