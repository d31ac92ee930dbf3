"""`launcher.backends.pods` on answers of a real cluster."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from launcher.backends.pods import PodEnd, PodFact, exit_code, note, pod_end, pod_facts
from launcher.backends.waiting import Object
from tests.launcher.backends.api_answers import answer


def facts_of(file: str, case: str) -> list[PodFact]:
    _, pods, events = answer(file, case)
    return pod_facts(pods, events)


def test_a_fact_says_who_where_and_why() -> None:
    [fact] = facts_of("jobs", "no-config-map")
    assert (fact.stage, fact.name, fact.node) == ("prepare", "slipway-prepare-00000000aa04-fzjm8", "node2")
    assert (fact.phase, fact.waits, fact.waiting) == ("pending", "settings", "ConfigMap absent is not there")
    [done] = facts_of("jobs", "complete")
    assert (done.phase, done.waits, done.waiting, done.past) == ("succeeded", None, "", "")
    [failed] = facts_of("jobs", "exit-75")
    assert (failed.phase, failed.past) == ("failed", "exit code 75")


def test_an_object_whose_pods_are_refused_is_a_fact_too() -> None:
    [fact] = facts_of("jobs", "quota")
    assert (fact.stage, fact.name, fact.node) == ("prepare", "slipway-prepare-00000000bb01", "")
    assert fact.waits == "quota" and "exceeded" not in fact.waiting and "16Mi" in fact.waiting
    _, _, events = answer("jobs", "quota")
    assert pod_facts([], events, names=["slipway-prepare-00000000bb02"]) == []
    assert pod_facts([], events, names=["slipway-prepare-00000000bb01"]) == [fact]


def test_a_refusal_that_has_passed_is_forgotten() -> None:
    _, _, [event] = answer("jobs", "quota")
    _, [pod], _ = answer("jobs", "complete")
    pod["metadata"] |= {"name": "slipway-prepare-00000000bb01-x", "creationTimestamp": "2026-11-21T12:59:59Z"}
    assert [fact.name for fact in pod_facts([pod], [event])] == ["slipway-prepare-00000000bb01-x"]
    pod["metadata"]["creationTimestamp"] = "2026-11-21T12:00:00Z"  # an earlier pod: the refusal is newer
    assert len(pod_facts([pod], [event])) == 2


@pytest.mark.parametrize(
    ("case", "end"),
    [
        ("complete", PodEnd(0)),
        ("exit-75", PodEnd(75)),
        ("memory-limit", PodEnd(-9, "memory-limit", "it reached its memory limit of 64Mi")),
        ("no-image", None),
        ("deadline-stopping", None),
    ],
)
def test_how_a_pod_ended(case: str, end: PodEnd | None) -> None:
    _, [pod], _ = answer("jobs", case)
    assert pod_end(pod) == end


@pytest.mark.parametrize(
    ("reason", "ended_by"),
    [
        ("PreemptionByScheduler", "preempted"),
        ("DeletionByTaintManager", "node-lost"),
        ("EvictionByEvictionAPI", "evicted"),
        ("TerminationByKubelet", "evicted"),
        ("SomethingNew", "evicted"),
    ],
)
def test_who_put_a_pod_out(reason: str, ended_by: str) -> None:
    _, [pod], _ = answer("jobs", "exit-75")
    pod["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": reason})
    end = pod_end(pod)
    assert end is not None and (end.exit_code, end.ended_by) == (75, ended_by) and end.words


def test_a_pod_that_ended_unseen() -> None:
    _, [pod], _ = answer("jobs", "exit-75")
    message = "The node was low on resource: memory."
    pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": message}
    assert pod_end(pod) == PodEnd(None, "evicted", message)


@pytest.mark.parametrize(
    ("code", "known"), [(0, 0), (2, 2), (75, 75), (137, -9), (143, -15), (255, 255), (128, 128)]
)
def test_signals_are_negative(code: int, known: int) -> None:
    assert exit_code(code) == known


# Notes ------------------------------------------------------------------------------------------------------


def worker(**status: Any) -> Object:
    _, [pod], _ = answer("jobs", "no-gpu")
    pod["metadata"]["labels"] |= {"slipway/stage": "train", "ray.io/node-type": "worker"}
    return pod | {"status": {**pod["status"], **status}}


def test_workers_that_wait_for_the_same_are_told_in_one_sentence() -> None:
    running = worker(phase="Running", conditions=[])
    pods = [copy.deepcopy(pod) for pod in (worker(), worker(), worker(), running)]
    told = note(pod_facts(pods))
    assert told.startswith("a worker (3 of 4) waits: no node has 9 free GPUs; wait for others to end")


def test_a_restarted_worker_is_told() -> None:
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    statuses = [{"name": "stage", "restartCount": 1, "state": {"running": {}}, "lastState": last}]
    pod = worker(phase="Running", conditions=[], containerStatuses=statuses)
    assert pod_facts([pod])[0].restarts == 1
    assert note(pod_facts([pod])) == "a worker was restarted: it reached its memory limit of 64Mi"


def test_where_all_is_well_nothing_is_told() -> None:
    assert note(facts_of("jobs", "complete")) == ""
    assert note(pod_facts([worker(phase="Running", conditions=[])])) == ""
    assert note([]) == ""
