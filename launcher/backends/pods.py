"""Pods in plain words: who they are, what each does, and why one waits or ended. Pure.

`pod_facts` takes what two API lists return (pods and warning events of a run); the backend's notes and
`slipway status` are made from it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.backends.waiting import WaitKind, explain_refusal, why_waiting
from launcher.kube import Object

#: Labels that Kubernetes and KubeRay set on pods.
RAY_CLUSTER, RAY_NODE_TYPE = "ray.io/cluster", "ray.io/node-type"
#: Our own, of every object of a run and its pods.
RUN, JOB, STAGE, KEY, ROLE = "slipway/run", "slipway/job", "slipway/stage", "slipway/key", "slipway/role"

PodPhase = Literal["pending", "running", "stopping", "succeeded", "failed"]
#: What ended a container, in the words of `launcher.status.FAILURES`; empty: it ended by itself.
EndedBy = Literal["", "memory-limit", "preempted", "evicted", "node-lost", "never-started"]

#: `DisruptionTarget` conditions: who is putting a pod out.
_DISRUPTIONS: Mapping[str, EndedBy] = {
    "PreemptionByScheduler": "preempted",
    "DeletionByTaintManager": "node-lost",
    "DeletionByPodGC": "node-lost",
    "EvictionByEvictionAPI": "evicted",
    "TerminationByKubelet": "evicted",
}
_WORDS: Mapping[EndedBy, str] = {
    "preempted": "something of a higher priority took its place",
    "node-lost": "its node was lost",
    "evicted": "its node put it out",
}
#: Events of objects whose pods the API server did not accept.
_REFUSED = ("FailedCreate", "FailedToCreateHeadPod", "FailedToCreateWorkerPod")
_STAGE_OF_NAME = re.compile(r"slipway-([a-z]+)-[0-9a-f]{12}(?![0-9a-f])|slipway-(pilot)-")


@dataclass(frozen=True, kw_only=True)
class PodFact:
    """One pod; or, with `phase` pending and no node, pods that an object could not make (`name` is its)."""

    stage: str  # kind of stage, or `pilot`
    name: str
    role: Literal["", "head", "worker"] = ""  # within a training
    node: str = ""
    phase: PodPhase
    restarts: int = 0  # of its containers
    waits: WaitKind | None = None  # what kind of reason it has to wait
    waiting: str = ""  # why it waits, in words that end a sentence which begins with who does
    advice: str = ""  # what to do about that
    past: str = ""  # how it ended, or why its container was restarted, likewise


@dataclass(frozen=True)
class PodEnd:
    """How a pod's container ended. `exit_code`: None where nobody saw it, -N for signal N."""

    exit_code: int | None
    ended_by: EndedBy = ""
    words: str = ""


def pod_facts(
    pods: Sequence[Object], events: Iterable[Object] = (), names: Collection[str] | None = None
) -> list[PodFact]:
    """One fact for each pod (by stage and name), and one for each object whose pods are refused: of those
    that the events tell of, or only of the objects called `names` and of what these own."""
    events = sorted(events, key=event_time)
    said = {
        event["involvedObject"]["name"]: str(event.get("message", "")) for event in events if _warns(event)
    }
    facts = [_fact(pod, said) for pod in pods]
    refused = _refused(pods, [event for event in events if names is None or _is_of(event, names)])
    return sorted([*facts, *refused], key=lambda fact: (fact.stage, fact.role, fact.name))


def is_pending(pod: Object) -> bool:
    """None of its containers has been started."""
    return bool(pod.get("status", {}).get("phase") == "Pending")


def main_state(pod: Object) -> dict[str, Any]:
    """State of the pod's first container: `{"running" | "waiting" | "terminated": {…}}`, or empty."""
    return dict(_main_status(pod).get("state") or {})


def pod_end(pod: Object) -> PodEnd | None:
    """How the pod ended; None while it may still run."""
    status = pod.get("status", {})
    terminated = main_state(pod).get("terminated")
    ended_by = _ended_by(pod)
    words = str(status.get("message") or "") or _WORDS.get(ended_by, "")
    if terminated is None:
        gone = status.get("phase") in ("Failed", "Succeeded")
        return PodEnd(None, ended_by, words) if gone else None
    code = exit_code(int(terminated.get("exitCode", 0)))
    if terminated.get("reason") == "OOMKilled":
        return PodEnd(-signal.SIGKILL, "memory-limit", f"it reached its memory limit{_limit(pod)}")
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        return PodEnd(code, "never-started", str(terminated.get("message", "")).strip())
    return PodEnd(code, ended_by, words)


def exit_code(code: int) -> int:
    """A container's exit code; 128 + N, by which containers tell that signal N ended them, becomes -N."""
    return 128 - code if 128 < code <= 128 + signal.SIGRTMAX else code


def memory_killed(pods: Iterable[Object]) -> Object | None:
    """A pod with a container that reached its memory limit, lately or before its restart."""
    for pod in pods:
        status = _main_status(pod)
        for state in (status.get("state"), status.get("lastState")):
            if ((state or {}).get("terminated") or {}).get("reason") == "OOMKilled":
                return pod
    return None


def note(facts: Sequence[PodFact]) -> str:
    """What is worth knowing of a stage's pods in one line; empty where all is well."""
    groups: dict[tuple[str, str], int] = {}
    for fact in facts:
        if fact.waits not in (None, "starting"):
            what = f"waits: {fact.waiting}" + (f"; {fact.advice}" if fact.advice else "")
        elif fact.phase == "running" and fact.past:
            what = f"was restarted: {fact.past}"
        elif fact.phase == "failed" and fact.past:
            what = f"failed: {fact.past}"
        else:
            continue
        groups[fact.role, what] = groups.get((fact.role, what), 0) + 1
    totals = {role: sum(fact.role == role for fact in facts) for role, _ in groups}
    return ". ".join(f"{_who(role, count, totals[role])} {what}" for (role, what), count in groups.items())


def _who(role: str, count: int, total: int) -> str:
    who = {"head": "the head", "worker": "a worker", "": "its pod"}[role]
    return f"{who} ({count} of {total})" if total > 1 else who


def _fact(pod: Object, said: Mapping[str, str]) -> PodFact:
    metadata, status = pod["metadata"], pod.get("status", {})
    labels = metadata.get("labels") or {}
    why = why_waiting(pod, said)
    restarts = sum(int(item.get("restartCount", 0)) for item in status.get("containerStatuses") or ())
    role = {"head": "head", "worker": "worker"}.get(labels.get(RAY_NODE_TYPE, ""), "")
    return PodFact(
        stage=labels.get(STAGE, ""),
        name=metadata["name"],
        role=role,  # type: ignore[arg-type]
        node=pod.get("spec", {}).get("nodeName") or "",
        phase=_phase(pod),
        restarts=restarts,
        waits=why.kind if why else None,
        waiting=why.words if why else "",
        advice=why.advice if why else "",
        past=_past(pod),
    )


def _phase(pod: Object) -> PodPhase:
    phase = pod.get("status", {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        return "succeeded" if phase == "Succeeded" else "failed"
    if pod["metadata"].get("deletionTimestamp"):
        return "stopping"
    return "pending" if phase == "Pending" else "running"


def _past(pod: Object) -> str:
    """How a pod ended, or why its container was restarted."""
    end = pod_end(pod)
    if end is None:
        last = (_main_status(pod).get("lastState") or {}).get("terminated")
        if last is None:
            return _WORDS.get(_ended_by(pod), "")
        killed = last.get("reason") == "OOMKilled"
        return f"it reached its memory limit{_limit(pod)}" if killed else f"exit code {last.get('exitCode')}"
    if end.words:
        return end.words
    return f"exit code {end.exit_code}" if end.exit_code else ""


def _main_status(pod: Object) -> dict[str, Any]:
    names = [container["name"] for container in pod.get("spec", {}).get("containers", ())]
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((dict(item) for item in statuses if names and item.get("name") == names[0]), {})


def _ended_by(pod: Object) -> EndedBy:
    status = pod.get("status", {})
    if status.get("reason") in ("Evicted", "NodeLost"):
        return "evicted" if status["reason"] == "Evicted" else "node-lost"
    for item in status.get("conditions") or ():
        if item["type"] == "DisruptionTarget" and item["status"] == "True":
            return _DISRUPTIONS.get(str(item.get("reason")), "evicted")
    return ""


def _limit(pod: Object) -> str:
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return f" of {limits['memory']}" if "memory" in limits else ""


def _warns(event: Object) -> bool:
    return bool(event.get("type") == "Warning")


def _is_of(event: Object, names: Collection[str]) -> bool:
    involved = str(event["involvedObject"]["name"])
    return any(involved == name or involved.startswith(f"{name}-") for name in names)


def _refused(pods: Sequence[Object], events: Sequence[Object]) -> list[PodFact]:
    """Objects whose newest attempt to make a pod was refused: no pod of theirs is younger."""
    newest = {event["involvedObject"]["name"]: event for event in events if event.get("reason") in _REFUSED}
    facts = []
    for name, event in newest.items():
        found = _STAGE_OF_NAME.match(name)
        made = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{name}-")]
        if found is None or any(pod["metadata"]["creationTimestamp"] >= event_time(event) for pod in made):
            continue
        why = explain_refusal(str(event.get("message", "")))
        facts.append(
            PodFact(
                stage=found.group(1) or found.group(2),
                name=name,
                role={"FailedToCreateHeadPod": "head", "FailedToCreateWorkerPod": "worker"}.get(  # type: ignore[arg-type]
                    event["reason"], ""
                ),
                phase="pending",
                waits=why.kind,
                waiting=why.words,
                advice=why.advice,
            )
        )
    return facts


def event_time(event: Object) -> str:
    """When it was last seen (RFC 3339, whole seconds: comparable as text)."""
    series = event.get("series") or {}
    moment = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
    )
    return str(moment or "")[:19]
