"""How a stage's object in the cluster ended, as far as its status and its pods tell. Pure.

Only what all agree on counts as success: a Job must be `Complete`, a RayJob `Complete` with the Ray job
`SUCCEEDED` (a stopped one is `Complete` too); the commit marker is `launcher.status`'s to compare.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.contract import EXIT_DONE, EXIT_DRAINED, EXIT_USER_ERROR
from launcher.backends.pods import (
    RAY_NODE_TYPE,
    STAGE,
    PodEnd,
    event_time,
    exit_code,
    main_state,
    memory_killed,
    pod_end,
)
from launcher.kube import Object, condition

#: What Ray says of an entrypoint that ended badly (`ray/dashboard/modules/job/job_supervisor.py`).
_ENTRYPOINT_CODE = re.compile(r"entrypoint command failed with exit code (-?\d+)")
_OWN_WORDS = (EXIT_DONE, EXIT_DRAINED, EXIT_USER_ERROR)

#: RayJob `status.reason` -> name in the failure table, and what it means.
_REASONS = {
    "DeadlineExceeded": ("deadline", "it ran longer than limits.train_s and limits.pending_s together"),
    "PreRunningDeadlineExceeded": ("never-started", "its workers were not ready in time"),
    "SubmissionFailed": ("cluster-trouble", "the Ray head did not accept the job"),
    "JobDeploymentStatusTransitionGracePeriodExceeded": (
        "cluster-trouble",
        "the operator did not notice in time that the Ray job had ended",
    ),
    "JobStatusCheckTimeoutExceeded": ("cluster-trouble", "the Ray head did not answer for too long"),
    "ValidationFailed": ("never-started", "the operator refuses the RayJob"),
}
#: RayJob `status.jobDeploymentStatus` while no training goes on, though nothing is wrong.
_PAUSES = {
    "Suspending": "suspended by its queue: its pods save and end",
    "Suspended": "suspended by its queue: waits to be admitted",
    "Retrying": "the operator starts its cluster anew",
}


@dataclass(frozen=True)
class Ending:
    """`ended_by`: a name in `launcher.status.FAILURES`, empty where the exit code says all. `cause` and
    `advice` as seen from outside."""

    exit_code: int | None
    ended_by: str = ""
    cause: str = ""
    advice: str = ""
    output: str = ""


def ending(body: Object, pods: Sequence[Object]) -> Ending | None:
    """How a Job or RayJob ended; None while it goes on. `pods` are its own."""
    return _ray_job_ending(body, pods) if body.get("kind") == "RayJob" else _job_ending(body, pods)


def pause(body: Object) -> str:
    """Why nothing of it runs by intention, in words; empty where it is meant to run."""
    if body.get("kind") == "RayJob":
        return _PAUSES.get(str(body.get("status", {}).get("jobDeploymentStatus", "")), "")
    return _PAUSES["Suspended"] if body.get("spec", {}).get("suspend") else ""


def queue_says(body: Object, events: Sequence[Object]) -> str:
    """The queue's newest word on why the object waits, empty where it has said nothing. Kueue tells it in
    events of the workload that it makes for an object, named `<kind>-<name>-<hash>`."""
    workload = f"{str(body.get('kind', '')).lower()}-{body['metadata']['name']}-"
    said = [
        event
        for event in events
        if event["involvedObject"]["name"].startswith(workload) and event.get("reason") == "Pending"
    ]
    newest = max(said, key=event_time, default={})
    return str(newest.get("message", ""))


def can_save(body: Object, pods: Sequence[Object]) -> bool:
    """Whether a program of it runs that could heed a stop request."""
    if body.get("kind") == "RayJob":
        return bool(body.get("status", {}).get("jobStatus") == "RUNNING")
    return any("running" in main_state(pod) for pod in pods)


def _job_ending(job: Object, pods: Sequence[Object]) -> Ending | None:
    if condition(job, "Complete"):
        return Ending(EXIT_DONE)
    failed = condition(job, "Failed")
    if failed is None:
        return None
    if failed.get("reason") == "DeadlineExceeded":
        return Ending(None, "deadline", "it ran longer than limits.stage_s and limits.pending_s together")
    by_age = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    ends = [end for end in map(pod_end, by_age) if end is not None]
    if not ends:
        return Ending(None, "node-lost" if _disrupted(failed) else "deleted", "its pod is gone")
    return _of_pod(ends[-1], stage_advice(job, ends[-1]))


def _ray_job_ending(ray_job: Object, pods: Sequence[Object]) -> Ending | None:
    status = ray_job.get("status", {})
    deployment, state = status.get("jobDeploymentStatus"), status.get("jobStatus")
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if deployment not in ("Complete", "Failed", "ValidationFailed"):
        return None
    if state == "SUCCEEDED" and deployment == "Complete":
        return Ending(EXIT_DONE)
    if state == "STOPPED":
        return Ending(None, "stopped", "somebody stopped the Ray job")
    if reason in _REASONS:
        ended_by, words = _REASONS[reason]
        detail = message.splitlines()[0] if message and ended_by != "deadline" else ""
        return Ending(None, ended_by, f"{words} ({detail})" if detail else words)
    found = _ENTRYPOINT_CODE.search(message)
    code = exit_code(int(found.group(1))) if found else None
    if code not in _OWN_WORDS and (killed := memory_killed(pods)):
        role = killed["metadata"].get("labels", {}).get(RAY_NODE_TYPE, "worker")
        return Ending(
            -signal.SIGKILL, "memory-limit", f"the {role} reached its memory limit", _memory_advice(role)
        )
    if found is None:  # Ray's job supervisor died, or never began: the head went away under it
        return Ending(None, "cluster-trouble", message.splitlines()[0] if message else "no reason was given")
    likely = _memory_advice("head") if code == -signal.SIGKILL else ""
    return Ending(code, advice=f"{likely}, if it was memory" if likely else "", output=message)


def _of_pod(end: PodEnd, advice: str) -> Ending:
    if end.exit_code in _OWN_WORDS or not end.ended_by:
        return Ending(end.exit_code, "" if end.exit_code is not None else "node-lost", end.words)
    return Ending(end.exit_code, end.ended_by, end.words, advice)


def stage_advice(job: Object, end: PodEnd) -> str:
    if end.ended_by != "memory-limit":
        return ""
    return _memory_advice(str(job["metadata"].get("labels", {}).get(STAGE, "")))


def _memory_advice(resource: str) -> str:
    smaller = ", or lower training.micro_batch_size or training.max_length" if resource == "worker" else ""
    return f"raise resources.{resource}.memory in the cluster profile{smaller}"


def _disrupted(failed: Object) -> bool:
    return "disruption" in str(failed.get("message", "")).lower()
