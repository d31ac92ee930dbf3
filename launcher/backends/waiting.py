"""Why a pod does not run yet, in plain words, and what to do about it. Pure.

The API says it in many places: a pod's conditions (no node fits), its containers' `waiting` (images,
Secrets), or only in events (volumes, quotas); in messages of the scheduler, the kubelet and admission.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from launcher.kube import Object

#: starting: nothing is wrong; room, quota: it may pass when others end; image, settings: somebody must act.
WaitKind = Literal["starting", "room", "quota", "image", "settings"]


@dataclass(frozen=True)
class Why:
    """One reason: `words` end a sentence that begins with who waits."""

    kind: WaitKind
    words: str
    advice: str = ""


@dataclass(frozen=True)
class _Form:
    """A message of Kubernetes and what it means. `words` may use the pattern's groups, and `{asked}`: what
    the pod asks of that resource."""

    pattern: str
    kind: WaitKind
    words: str
    advice: str = ""


#: What the scheduler says of nodes ("0/2 nodes are available: 2 Insufficient cpu, 1 node(s) had …").
_ROOM = (
    _Form(
        r"Insufficient nvidia\.com/gpu",
        "room",
        "no node has {asked} free GPUs",
        "wait for others to end, lower compute.workers, or correct nodes.gpus_per_node of the profile",
    ),
    _Form(
        r"Insufficient memory",
        "room",
        "no node has {asked} of free memory",
        "wait for others to end, or lower the stage's `resources` (or nodes.memory) in the cluster profile",
    ),
    _Form(
        r"Insufficient cpu",
        "room",
        "no node has {asked} free cores",
        "wait for others to end, or lower the stage's `resources` (or nodes.cpus) in the cluster profile",
    ),
    _Form(
        r"Insufficient (?!nvidia\.com/gpu|memory|cpu)(?P<resource>\S+?)[.,]?$",
        "room",
        "no node has {asked} of {resource} free",
        "wait for others to end; nodes.network of the profile sets what workers ask for",
    ),
    _Form(
        r"node affinity/selector",
        "room",
        "no node carries the labels that it asks for",
        "correct nodes.selector of the cluster profile (`kubectl get nodes --show-labels`)",
    ),
    _Form(
        r"untolerated taint\(?s?\)? ?\{node\.kubernetes\.io/(unreachable|not-ready)",
        "room",
        "a node is not ready",
        "`kubectl get nodes` tells which; mend or remove it",
    ),
    _Form(
        r"untolerated taint.*?(?P<taint>\{(?!node\.kubernetes\.io/(?:unreachable|not-ready))[^}]*\})",
        "room",
        "the nodes that would fit carry a taint {taint}",
        "add it to nodes.tolerations of the cluster profile",
    ),
    _Form(r"were unschedulable", "room", "the nodes that would fit are cordoned", "`kubectl uncordon NODE`"),
    _Form(r"Too many pods", "room", "the nodes are full of pods", "wait for others to end"),
    _Form(
        r'persistentvolumeclaim "?(?P<claim>[\w.-]+)"? not found',
        "settings",
        "its volume claim {claim} is not there",
        "make it, or correct cache.claim of the cluster profile",
    ),
    _Form(
        r"unbound immediate PersistentVolumeClaims",
        "room",
        "its volume claim is not bound",
        "`kubectl describe pvc` says why",
    ),
)

#: What keeps a container from being made, and pods from being accepted.
_REFUSALS = (
    _Form(
        r"exceeded quota: (?P<quota>[\w.-]+), requested: (?P<requested>\S+?), used: (?P<used>\S+?), "
        r"limited: (?P<limited>\S+)",
        "quota",
        "quota {quota} allows {limited}, {used} is in use, and it asks for {requested}",
        "wait for others to end, lower the stage's `resources`, or have the quota raised",
    ),
    _Form(
        r"failed quota: (?P<quota>[\w.-]+): (?P<detail>.*)",
        "settings",
        "quota {quota} refuses it: {detail}",
        "set it in the cluster profile (pod_template)",
    ),
    _Form(
        r"violates PodSecurity \"(?P<level>[^\"]*)\": (?P<detail>.*)",
        "settings",
        "the namespace's pod security level {level} refuses it: {detail}",
        "correct pod_template of the cluster profile",
    ),
    _Form(
        r"serviceaccount \"(?P<account>[\w.-]+)\" not found",
        "settings",
        "service account {account} is not there",
        "`kubectl apply -k k8s/` makes it, or correct service_account of the cluster profile",
    ),
    _Form(
        r"no PriorityClass with name (?P<name>\S+) was found",
        "settings",
        "priority class {name} is not there",
        "correct queue.priority_class of the cluster profile",
    ),
    _Form(
        r"secret \"(?P<secret>[\w.-]+)\" not found",
        "settings",
        "Secret {secret} is not there",
        "make it: `kubectl create secret generic {secret} --from-literal=KEY=VALUE`",
    ),
    _Form(
        r"couldn't find key (?P<key>\S+) in Secret [\w.-]+/(?P<secret>[\w.-]+)",
        "settings",
        "Secret {secret} has no key {key}",
        "add it: `kubectl edit secret {secret}`",
    ),
    _Form(
        r"configmap \"(?P<name>[\w.-]+)\" not found",
        "settings",
        "ConfigMap {name} is not there",
        "submit the job again: it makes what is missing",
    ),
)

_IMAGE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
)
_IMAGE = (
    _Form(
        r"not found|NotFound|manifest unknown",
        "image",
        "the registry has no image {image}",
        "`slipway image build` builds and pushes it",
    ),
    _Form(
        r"401|403|[Uu]nauthorized|[Ff]orbidden|denied|authorization failed|no basic auth",
        "image",
        "the registry refuses to give out {image}",
        "name a Secret with its credentials in image.pull_secrets of the cluster profile",
    ),
    _Form(
        r"no such host|connection refused|timeout|unreachable|dial tcp|EOF|certificate|HTTP response",
        "image",
        "its node can't reach the registry of {image}",
        "check image.registry of the cluster profile as nodes see it",
    ),
    _Form(r"", "image", "{image} can't be pulled", "`slipway image ls` shows what was pushed"),
)

_SCHEDULER = re.compile(r"\d+/\d+ nodes are available: (.*?)(?:\. (?:no new claims|preemption)|\.?$)", re.S)


def why_waiting(pod: Object, events: Mapping[str, str] | None = None) -> Why | None:
    """Why a pod that is not running waits; None where it runs, or has ended. `events`: the newest warning of
    objects by their name."""
    status = pod.get("status", {})
    if status.get("phase") != "Pending" or pod["metadata"].get("deletionTimestamp"):
        return None
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return explain_unschedulable(str(condition.get("message", "")), pod)
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating", None):
            return _explain_container(waiting, container.get("image", ""))
    said = (events or {}).get(pod["metadata"]["name"], "")
    refusal = _first(_REFUSALS, said)
    return refusal or Why("starting", "its image is pulled and its container made")


def explain_unschedulable(message: str, pod: Object) -> Why:
    """What the scheduler says of the nodes: every hindrance that is known, the advice of the first (of a GPU
    job on busy nodes that is what it says of GPUs)."""
    found = _SCHEDULER.search(message)
    hindrances = found.group(1) if found else message
    whys = [_first((form,), hindrance.strip(), pod) for form in _ROOM for hindrance in _split(hindrances)]
    known = [why for why in whys if why]
    if not known:
        return Why("room", f"no node takes it ({hindrances.strip()})", "`kubectl describe pod` says more")
    return Why(known[0].kind, ", ".join(dict.fromkeys(why.words for why in known)), known[0].advice)


def explain_refusal(message: str) -> Why:
    """Why the API server did not accept a pod."""
    text = message.partition("is forbidden: ")[2] or message
    return _first(_REFUSALS, text) or Why("settings", f"the API server refuses it: {text}")


def _explain_container(waiting: Mapping[str, Any], image: str) -> Why:
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in _IMAGE_REASONS:
        why = _first(_IMAGE, message, image=image)
        assert why is not None  # the last form matches all
        return why
    refusal = _first(_REFUSALS, message)
    return refusal or Why(
        "settings", f"its container can't be made ({reason}: {message})".replace(": )", ")")
    )


def _split(hindrances: str) -> list[str]:
    """At commas, but not those within braces of a taint."""
    return re.split(r",\s+(?![^{]*\})", hindrances)


def _first(forms: tuple[_Form, ...], message: str, pod: Object | None = None, image: str = "") -> Why | None:
    for form in forms:
        if found := re.search(form.pattern, message):
            groups = {name: text or "" for name, text in found.groupdict().items()}
            resource = groups.get("resource") or found.group(0).removeprefix("Insufficient ")
            values = {"image": image, "asked": asked(pod, resource) if pod else "", **groups}
            return Why(form.kind, form.words.format(**values).strip(), form.advice.format(**values))
    return None


def asked(pod: Object, resource: str) -> str:
    """What the pod's containers request of one resource (the first that does), as people write it."""
    requests = [item.get("resources", {}).get("requests", {}) for item in pod["spec"]["containers"]]
    amount = next((str(amounts[resource]) for amounts in requests if resource in amounts), "enough")
    millicores = amount.removesuffix("m")
    return f"{int(millicores) / 1000:g}" if resource == "cpu" and millicores != amount else amount
