"""Fast networks between GPU nodes, by name: the resources that workers ask for and NCCL's variables.

A preset names the extended resource of the device plugin that hands out the adapters. How many a node has
depends on its type; a profile can name another resource and more variables (`nodes.network_resource`,
`nodes.nccl`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Network:
    """One kind of network. `devices` is how many of `resource` a node has, None where its type decides;
    `extras` are further resources of a pod that uses it, whatever its size."""

    name: str
    what: str
    resource: str = ""
    devices: int | None = 0
    extras: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""  # what the image must hold beside NCCL
    source: str = ""


#: EFA adapters of one node, by instance type. torchx, `named_resources_aws.py` (2025); AWS EC2 user guide,
#: network cards of accelerated computing instances (2025-06).
EFA_ADAPTERS: Mapping[str, int] = {
    "p4d.24xlarge": 4,
    "p4de.24xlarge": 4,
    "p5.48xlarge": 32,
    "p5e.48xlarge": 32,
    "p5en.48xlarge": 16,
    "p6-b200.48xlarge": 8,
}

NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(name="none", what="TCP over the cluster's own network"),
        Network(
            name="efa",
            what="AWS Elastic Fabric Adapter",
            resource="vpc.amazonaws.com/efa",
            devices=None,
            # libfabric's bounce buffers lie in huge pages.
            extras={"hugepages-2Mi": "5120Mi"},
            variables={"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"},
            needs="libfabric and aws-ofi-nccl",
            source="Amazon EKS user guide, 'Run machine learning training on Amazon EKS with Elastic Fabric "
            "Adapter' (2025); aws-ofi-nccl README; libfabric manual, fi_efa(7)",
        ),
        Network(
            name="rdma",
            what="InfiniBand or RoCE through the RDMA shared device plugin",
            resource="rdma/hca_shared_devices_a",
            devices=1,  # shared: one gives all adapters of the node
            # The GID of RoCE v2 is found by NCCL itself since 2.21 (NCCL_IB_GID_INDEX).
            variables={"NCCL_IB_HCA": "mlx5"},
            source="k8s-rdma-shared-dev-plugin README (2025), sample configuration; NCCL user guide 2.28, "
            "environment variables",
        ),
    )
}
