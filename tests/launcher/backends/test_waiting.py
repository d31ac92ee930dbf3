"""`launcher.backends.waiting` on messages of a real cluster, and on those it could not be brought to give."""

from __future__ import annotations

import pytest

from launcher.backends.waiting import Why, explain_refusal, explain_unschedulable, why_waiting
from tests.launcher.backends.api_answers import answer


@pytest.mark.parametrize(
    ("case", "kind", "words", "advice"),
    [
        ("no-gpu", "room", "no node has 9 free GPUs", "lower compute.workers"),
        ("no-cores", "room", "no node has 500 free cores", "nodes.cpus"),
        ("no-labels", "room", "no node carries the labels that it asks for", "nodes.selector"),
        ("no-claim", "settings", "its volume claim absent is not there", "cache.claim"),
        ("no-image", "image", "has no image localhost:5000/nothing-here:1", "slipway image build"),
        ("no-image-at-first", "image", "has no image localhost:5000/nothing-here:1", "slipway image build"),
        ("no-secret", "settings", "Secret absent is not there", "kubectl create secret generic absent"),
        ("no-secret-key", "settings", "Secret half has no key k", "kubectl edit secret half"),
        ("no-config-map", "settings", "ConfigMap absent is not there", "submit the job again"),
    ],
)
def test_a_pod_says_why_it_waits(case: str, kind: str, words: str, advice: str) -> None:
    _, [pod], events = answer("jobs", case)
    said = {event["involvedObject"]["name"]: event["message"] for event in events}
    why = why_waiting(pod, said)
    assert why is not None and why.kind == kind
    assert words in why.words and advice in why.advice


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("quota", "quota", "quota team allows requests.memory=16Mi, requests.memory=0 is in use"),
        ("pod-security", "settings", "level restricted:latest refuses it: runAsNonRoot != true"),
        ("no-service-account", "settings", "service account absent is not there"),
        ("no-priority-class", "settings", "priority class absent is not there"),
    ],
)
def test_a_refused_pod_is_explained_by_its_event(case: str, kind: str, words: str) -> None:
    _, pods, [event] = answer("jobs", case)
    assert pods == []
    why = explain_refusal(event["message"])
    assert why.kind == kind and words in why.words and why.advice


@pytest.mark.parametrize("case", ["exit-75", "complete", "memory-limit", "deadline-stopping"])
def test_a_pod_that_runs_or_has_ended_waits_for_nothing(case: str) -> None:
    _, [pod], _ = answer("jobs", case)
    assert why_waiting(pod) is None


def test_a_pod_whose_image_is_pulled_is_only_starting() -> None:
    _, [pod], _ = answer("jobs", "no-config-map")
    assert why_waiting(pod) == Why("starting", "its image is pulled and its container made")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "0/9 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 8 Insufficient memory. "
            "preemption: 0/9 nodes are available: 9 Preemption is not helpful for scheduling.",
            "no node has enough of free memory, the nodes that would fit carry a taint {gpu: yes}",
        ),
        (
            "0/2 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, "
            "1 node(s) were unschedulable.",
            "a node is not ready, the nodes that would fit are cordoned",
        ),
        ("0/4 nodes are available: 4 Insufficient vpc.amazonaws.com/efa.", "vpc.amazonaws.com/efa free"),
        (
            "0/3 nodes are available: 3 node(s) had something new.",
            "no node takes it (3 node(s) had something",
        ),
        ("running PreBind plugin: timed out", "no node takes it (running PreBind plugin: timed out)"),
    ],
)
def test_the_scheduler_in_plain_words(message: str, words: str) -> None:
    why = explain_unschedulable(message, {"spec": {"containers": [{}]}})
    assert words in why.words and why.advice


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("failed to authorize: 401 Unauthorized", "image.pull_secrets"),
        ('failed to do request: Head "https://r/v2": dial tcp: lookup r: no such host', "image.registry"),
        ("something else", "slipway image ls"),
    ],
)
def test_what_a_registry_says(message: str, advice: str) -> None:
    _, [pod], _ = answer("jobs", "no-image")
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"] = message
    why = why_waiting(pod)
    assert why is not None and why.kind == "image" and advice in why.advice


def test_unknown_refusals_are_quoted() -> None:
    assert "webhook says no" in explain_refusal('pods "x" is forbidden: webhook says no').words
    _, [pod], _ = answer("jobs", "no-secret")
    waiting = {"reason": "CreateContainerError", "message": "no space"}
    pod["status"]["containerStatuses"][0]["state"]["waiting"] = waiting
    why = why_waiting(pod)
    assert why is not None and "CreateContainerError: no space" in why.words
