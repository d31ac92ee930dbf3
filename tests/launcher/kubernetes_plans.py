"""Plans for Kubernetes clusters, made by hand: settled keys, profiles and images."""

from __future__ import annotations

from typing import Any

from artifacts.contract import (
    DataParams,
    ImageParams,
    MergeParams,
    ModelParams,
    Plan,
    PredictParams,
    PrepareParams,
    StageKind,
    TwinParams,
)
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.image import Images
from tests.plan_parts import stage, train_params

PILOT_DIGEST, TRAIN_DIGEST = "a" * 64, "b" * 64
IMAGES = Images(
    pilot=f"registry.example.com/ml/slipway@sha256:{PILOT_DIGEST}",
    train=f"registry.example.com/ml/slipway@sha256:{TRAIN_DIGEST}",
)

#: A cluster without GPUs whose store takes keys from a Secret.
CPU: dict[str, Any] = {
    "backend": "kubernetes",
    "namespace": "slipway",
    "store": "s3://artifacts/slipway",
    "s3": {"endpoint": "https://s3.example.com", "secret": "slipway-s3"},
    "image": {"builder": "buildah", "registry": "registry.example.com/ml"},
    "nodes": {"cpus": 16, "memory": "64Gi"},
}
#: Nodes of eight H100 behind Kueue, with all that a profile can say.
GPU: dict[str, Any] = {
    "backend": "kubernetes",
    "namespace": "ml",
    "store": "s3://artifacts/slipway",
    "s3": {"region": "eu-central-1"},
    "image": {
        "registry": "registry.example.com/ml",
        "pull_secrets": ["registry"],
    },
    "nodes": {
        "gpu": "H100-80GB",
        "gpus_per_node": 8,
        "cpus": 180,
        "memory": "1900Gi",
        "selector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "together_key": "topology.k8s.aws/network-node-layer-2",
        "shared_memory": "64Gi",
        "network": "efa",
        "network_devices": 32,
        "nccl": {"NCCL_DEBUG": "WARN"},
    },
    "queue": {"kueue": "research", "priority_class": "training"},
    "environment": {"HF_ENDPOINT": "https://hub.example.com"},
    "secrets": {"HF_TOKEN": {"secret": "hub", "key": "token"}},
    "labels": {"team": "assistants"},
    "annotations": {"example.com/cost-center": "4711"},
}


def kubernetes_plan(profile: dict[str, Any], workers: int = 2, **more: Any) -> Plan:
    """Every stage of a plan with `workers` ranks on the cluster of `profile`."""
    cluster = KubernetesCluster.model_validate(profile)
    accelerator = cluster.nodes.gpu
    model = stage(StageKind.MODEL, ModelParams(source="twin", twin=TwinParams()), "1" * 64)
    data = stage(StageKind.DATA, DataParams(splits={}), "2" * 64)
    prepare = stage(
        StageKind.PREPARE, PrepareParams(max_length=64, packing=True), "3" * 64, data=data, model=model
    )
    params = train_params(world_size=workers, accelerator=accelerator)
    train = stage(StageKind.TRAIN, params, "4" * 64, prepare=prepare, model=model)
    merge = stage(StageKind.MERGE, MergeParams(), "5" * 64, train=train, model=model)
    predict = stage(StageKind.PREDICT, PredictParams(), "6" * 64, merge=merge, data=data)
    image = stage(StageKind.IMAGE, ImageParams(repository="registry.example.com/ml/slipway"), "0" * 64)
    fields: dict[str, Any] = {
        "name": "bot",
        "cluster": "example",
        "backend": "kubernetes",
        "store": cluster.store_uri,
        "engine": "ray",
        "stages": [image, data, model, prepare, train, merge, predict],
        "job": {"name": "bot"},
        "profile": cluster.model_dump(mode="json"),
        **more,
    }
    return Plan(**fields)
