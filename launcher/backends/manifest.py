"""Kubernetes objects of a run: a pure function of the plan, the run's id and the images.

`run_objects` starts a whole run (`kubectl apply` of them does what `submit` does): the plan as a ConfigMap,
the pilot's Job, a NetworkPolicy. `stage_object` is what the pilot makes for each stage: a RayJob that trains,
a Job for any other. Objects are plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.contract import Plan, StageKind, StagePlan
from launcher.backends.pod_template import PLAN_FILE, WORK, Pod, pod_template
from launcher.backends.pods import JOB, KEY, RUN, STAGE
from launcher.backends.rayjob import ray_job_spec, training_nodes
from launcher.errors import Problem, UserError
from launcher.kube import GPU, Object
from launcher.names import short_key
from launcher.spec.kubernetes import KUEUE_LABEL, KubernetesCluster
from launcher.spec.nodes import GpuResources
from launcher.stages.image import Images
from launcher.stages.pods import pod_module, runs_in_cluster

PILOT = "pilot"
#: Id of the drive that made a stage's object.
DRIVE = "slipway/drive"
#: The pilot must see how a stage ended, however short `limits.keep_s` is.
_LEAST_KEEP_S = 300
_PILOT_RETRIES = 20
#: Patch of the pilot's Job: no other pod after this one.
LAST_PILOT: Object = {"spec": {"backoffLimit": 0}}
#: Of a ConfigMap's data (Kubernetes API, `MaxSecretSize`), less its names.
_MAX_PLAN_BYTES = 1024**2 - 1024
#: Ray's job server, which the operator speaks to (and people, through the API server).
_DASHBOARD_PORT = 8265
#: A pod that was put out (its node drained, something of a higher priority) is replaced and does not count.
_IGNORE_DISRUPTION: Object = {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}


def stage_name(stage: StagePlan) -> str:
    """The same for every run: the API server lets one object have it, so one makes the artifact."""
    return f"slipway-{stage.kind}-{short_key(stage.key)}"


def pilot_name(run_id: str) -> str:
    return f"slipway-pilot-{run_id}"


def plan_name(run_id: str) -> str:
    return f"slipway-plan-{run_id}"


def labels(plan: Plan, run_id: str, stage_kind: StageKind | str = PILOT) -> dict[str, str]:
    """Of an object of the run: of one stage, or of the pilot."""
    marks = {
        "app.kubernetes.io/managed-by": "slipway",
        RUN: run_id,
        JOB: plan.name,
        STAGE: str(stage_kind),
    }
    return marks if stage_kind == PILOT else {**marks, KEY: short_key(plan.stage(stage_kind).key)}


def run_objects(plan: Plan, run_id: str, images: Images) -> list[Object]:
    """All that starts a run, in the order to apply it."""
    profile = KubernetesCluster.model_validate(plan.profile)
    policy = [network_policy(plan, run_id)] if profile.network_policy else []
    return [plan_config_map(plan, run_id), *policy, pilot_job(plan, run_id, images)]


def plan_config_map(plan: Plan, run_id: str) -> Object:
    """Raises UserError for a plan that is too large."""
    profile = KubernetesCluster.model_validate(plan.profile)
    text = plan.to_json()
    if len(text) > _MAX_PLAN_BYTES:
        why = f"{len(text):,} bytes; Kubernetes holds 1 MiB of it"
        raise UserError(Problem(where="", what="the plan", why=why, way_out="name fewer data files"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(profile, plan_name(run_id), labels(plan, run_id)),
        "immutable": True,
        "data": {"plan.json": text.decode()},
    }


def network_policy(plan: Plan, run_id: str) -> Object:
    """Who may connect to the run's pods: each other, and the operator to Ray's job server. What they connect
    to (the store, the API server, a hub) stays open."""
    profile = KubernetesCluster.model_validate(plan.profile)
    own = {"podSelector": {"matchLabels": {RUN: run_id}}}
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(profile, f"slipway-{run_id}", labels(plan, run_id)),
        "spec": {
            **own,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [own]},
                {"from": [operator], "ports": [{"protocol": "TCP", "port": _DASHBOARD_PORT}]},
            ],
        },
    }


def pilot_job(plan: Plan, run_id: str, images: Images) -> Object:
    """The Job that drives the run to its end. A pilot that is lost is replaced at once; one that knows that
    the run has failed says so with `LAST_PILOT`.

    A podFailurePolicy could say it too, but with one a pod that stays Terminating on a lost node is not
    replaced (Kubernetes, `podReplacementPolicy`), and nobody would drive. The Lease lets only one drive."""
    profile = KubernetesCluster.model_validate(plan.profile)
    resources = profile.resources.pilot
    marks = labels(plan, run_id)
    pod = Pod(
        image=images.pilot,
        plan=plan_name(run_id),
        args=("python", "-m", "launcher.pilots.pod", "--plan", PLAN_FILE, "--run", run_id),
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        labels=marks,
        service_account=profile.pilot_service_account,
        token=True,
        secrets=False,
        spec={"restartPolicy": "Never"},
    )
    spec = {"backoffLimit": _PILOT_RETRIES, "template": pod_template(profile, pod)}
    return _job(profile, pilot_name(run_id), marks, spec)


def stage_object(plan: Plan, run_id: str, stage: StagePlan, images: Images, drive: str = "") -> Object:
    """What carries out one stage in the cluster. Raises ValueError for a stage that does not run there."""
    if not runs_in_cluster(stage):
        raise ValueError(f"stage {stage.kind} does not run in the cluster")
    profile = KubernetesCluster.model_validate(plan.profile)
    marks = labels(plan, run_id, stage.kind)
    module = pod_module(stage)
    command = ["python", "-m", "train.pod", str(stage.kind)]
    command += ["--plan", PLAN_FILE, "--run", run_id, "--work", WORK]
    command += ["--module", module] if module != "train" else []
    image = images.pilot if module.startswith("launcher.") else images.train
    common = {"image": image, "plan": plan_name(run_id), "labels": marks}
    if stage.kind == StageKind.TRAIN:
        spec = ray_job_spec(profile, stage.params.world_size, command, common)
        metadata = _metadata(profile, stage_name(stage), marks)
        body: Object = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}
    else:
        body = _job(profile, stage_name(stage), marks, _stage_job_spec(profile, stage, command, common))
    if profile.queue.kueue:
        body["metadata"]["labels"][KUEUE_LABEL] = profile.queue.kueue
        body["spec"]["suspend"] = True  # until Kueue admits it
    if drive:
        body["metadata"].setdefault("annotations", {})[DRIVE] = drive
    return body


def _stage_job_spec(
    profile: KubernetesCluster, stage: StagePlan, command: Sequence[str], common: Mapping[str, Any]
) -> Object:
    _, resources = profile.resources.of(stage.kind)
    gpus = resources.gpus if isinstance(resources, GpuResources) else 0
    pod = Pod(
        args=command,
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        devices={GPU: str(gpus)} if gpus else {},
        service_account=profile.service_account,
        spec={"restartPolicy": "Never", **(training_nodes(profile) if gpus else {})},
        **common,
    )
    return {
        "backoffLimit": 0,  # the pilot decides on retries
        "podFailurePolicy": {"rules": [_IGNORE_DISRUPTION]},
        "activeDeadlineSeconds": profile.limits.pending_s + profile.limits.stage_s,
        "template": pod_template(profile, pod),
    }


def _job(profile: KubernetesCluster, name: str, marks: Mapping[str, str], spec: Object) -> Object:
    keep_s = max(profile.limits.keep_s, _LEAST_KEEP_S)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(profile, name, marks),
        "spec": {"ttlSecondsAfterFinished": keep_s, **spec},
    }


def _metadata(profile: KubernetesCluster, name: str, marks: Mapping[str, str]) -> Object:
    metadata: Object = {
        "name": name,
        "namespace": profile.namespace,
        "labels": {**profile.labels, **marks},
    }
    if profile.annotations:
        metadata["annotations"] = dict(profile.annotations)
    return metadata
