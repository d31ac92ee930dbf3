"""The nodes of a cluster profile, and what each kind of pod takes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from launcher import catalog
from launcher.networks import EFA_ADAPTERS, NETWORKS
from launcher.spec.grammar import ABSOLUTE_PATTERN, Label, LabelKey, Memory, label_conflicts
from launcher.spec.section import Conflict, Section
from launcher.spec.units import to_bytes

_TOLERATION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "operator": {"enum": ["Exists", "Equal"]},
        "value": {"type": "string"},
        "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        "tolerationSeconds": {"type": "integer"},
    },
    "additionalProperties": False,
}
#: Variables that NCCL and the libraries below it read.
_NETWORK_VARIABLES = ("NCCL_", "FI_", "OFI_", "UCX_", "GLOO_")


class Nodes(Section):
    """The nodes that train: their size, and which ones they are."""

    gpu: str | None = Field(
        None,
        min_length=1,
        description="GPU type of the catalog, as `H100-80GB`, or its name in node labels "
        "(`nvidia.com/gpu.product`). Left out: nodes without GPUs, workers compute on cores.",
    )
    gpus_per_node: int = Field(0, ge=0, le=16, description="GPUs of one node. Required with `gpu`.")
    count: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Most nodes that one job may take. Left out: as many as its workers need.",
    )
    cpus: float = Field(gt=0, description="Cores of one node that pods may request.", examples=[32])
    memory: Memory = Field(
        description="Memory of one node that pods may request, as `900Gi`: `kubectl describe node` says so "
        "under Allocatable, less what daemons request.",
        examples=["128Gi"],
    )
    selector: dict[str, str] = Field(
        {}, description="Labels that the nodes of workers carry. Left out: the GPU's own request decides."
    )
    tolerations: list[dict[str, Any]] = Field(
        [],
        description="Taints of these nodes that workers bear, as in a pod: `{key: nvidia.com/gpu, operator: "
        "Exists, effect: NoSchedule}`.",
        json_schema_extra={"items": _TOLERATION},
    )
    topology_key: LabelKey = Field(
        "kubernetes.io/hostname", description="Label of nodes by which workers are spread evenly."
    )
    together_key: LabelKey | None = Field(
        None,
        description="Label whose value all nodes of a job share, as `topology.kubernetes.io/zone` or a "
        "rack's. Left out: any nodes that fit.",
    )
    shared_memory: Memory | None = Field(
        None,
        description="/dev/shm of a worker's pod, part of its memory. Left out: an eighth of its memory, at "
        "most 16Gi.",
    )
    network: Literal["none", "efa", "rdma"] = Field(
        "none",
        description="Network between nodes, a preset of resources and NCCL variables (below, with their "
        "sources): `efa` on AWS, `rdma` InfiniBand or RoCE.",
    )
    network_devices: int | None = Field(
        None,
        ge=1,
        le=64,
        description="RDMA adapters of one node; a worker takes its share. Left out: 1 with `rdma`; required "
        "with `efa`.",
    )
    network_resource: LabelKey | None = Field(
        None,
        description="Resource that hands out the adapters, as `rdma/ib`. Left out: the preset's.",
    )
    nccl: dict[str, str] = Field(
        {}, description="More NCCL variables, as `NCCL_SOCKET_IFNAME: eth0`; they win over the preset's."
    )

    @property
    def memory_bytes(self) -> int:
        return to_bytes(self.memory)

    @property
    def shared_memory_bytes(self) -> int | None:
        return None if self.shared_memory is None else to_bytes(self.shared_memory)

    def conflicts(self) -> Iterator[Conflict]:
        if self.gpu is not None and catalog.find(self.gpu) is None:
            yield Conflict(("gpu",), "no such GPU type", f"one of {', '.join(catalog.names())}")
        if self.gpu is not None and not self.gpus_per_node:
            yield Conflict(("gpu", "gpus_per_node"), "how many a node has is left out", "add gpus_per_node")
        if self.gpus_per_node and self.gpu is None:
            yield Conflict(("gpus_per_node", "gpu"), "of which type is left out", "add gpu, as `H100-80GB`")
        yield from self._network_conflicts()
        yield from label_conflicts("selector", self.selector, selects=True)
        for index, toleration in enumerate(self.tolerations):
            yield from _toleration_conflicts(index, toleration)
        for name, size in (("memory", self.memory), ("shared_memory", self.shared_memory)):
            if size is not None and not to_bytes(size):
                yield Conflict((name,), "must be above 0")

    def _network_conflicts(self) -> Iterator[Conflict]:
        network = NETWORKS[self.network]
        if self.network != "none" and self.gpu is None:
            yield Conflict(("network", "gpu"), "only goes with GPUs, and these nodes have none", "remove it")
        if network.devices is None and self.network_devices is None:
            known = ", ".join(f"{name} {number}" for name, number in EFA_ADAPTERS.items())
            yield Conflict(
                ("network", "network_devices"),
                "how many adapters a node has depends on its type",
                f"add network_devices ({known})",
            )
        for field in ("network_devices", "network_resource"):
            if self.network == "none" and getattr(self, field) is not None:
                yield Conflict((field, "network"), "only goes with a network preset", "add network: rdma")
        for name in self.nccl:
            if not name.startswith(_NETWORK_VARIABLES):
                starts = ", ".join(_NETWORK_VARIABLES)
                yield Conflict((("nccl", name),), f"starts with none of {starts}", "use `environment`")


def _toleration_conflicts(index: int, toleration: Mapping[str, Any]) -> Iterator[Conflict]:
    """Against the API's rules (Kubernetes, `Toleration`)."""
    properties = _TOLERATION["properties"]
    whole = ("tolerations", index)
    for key, value in toleration.items():
        known = properties.get(key)
        if known is None:
            yield Conflict(((*whole, key),), "unknown key", f"known here: {', '.join(properties)}")
        elif "enum" in known and value not in known["enum"]:
            yield Conflict(((*whole, key),), f"must be {' or '.join(f'`{one}`' for one in known['enum'])}")
        elif known.get("type") == "string" and not isinstance(value, str):
            yield Conflict(((*whole, key),), "must be text", "put it in quotes")
        elif known.get("type") == "integer" and (not isinstance(value, int) or isinstance(value, bool)):
            yield Conflict(((*whole, key),), "must be a whole number")
    if toleration.get("operator") == "Exists" and "value" in toleration:
        yield Conflict(((*whole, "value"),), "operator Exists takes no value", "remove it")
    if "key" not in toleration and toleration.get("operator") != "Exists":
        yield Conflict((whole,), "names no key", "add key, or operator: Exists for every taint")
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        yield Conflict(((*whole, "tolerationSeconds"),), "only goes with effect NoExecute", "remove it")


class Resources(Section):
    """What one pod may use: its requests and its limits."""

    cpus: float = Field(gt=0, description="Cores.", examples=[2])
    memory: Memory = Field(description="Memory, as `8Gi`.", examples=["8Gi"])

    @property
    def memory_bytes(self) -> int:
        return to_bytes(self.memory)


class GpuResources(Resources):
    """The same, for stages that GPUs make faster."""

    gpus: int = Field(
        0, ge=0, le=64, description="GPUs of `nodes.gpu`, given back when the stage ends. 0: cores alone."
    )


#: Stages that are carried out as another one is.
_SAME_POD = {"original": "model", "adapter": "model", "data": "prepare"}
#: What a field that is left out takes after.
_LIKE = {"quantize": "merge", "gguf": "merge", "publish": "model"}


class StageResources(Section):
    """What each kind of pod takes. Training takes its GPUs by `compute.workers`."""

    pilot: Resources = Field(
        Resources(cpus=0.5, memory="1Gi"), description="The pilot, which drives the run to its end."
    )
    head: Resources = Field(
        Resources(cpus=2, memory="6Gi"), description="Ray's head, which starts the workers; it has no GPU."
    )
    model: Resources = Field(
        Resources(cpus=2, memory="4Gi"), description="Fetching or making the base model."
    )
    prepare: Resources = Field(Resources(cpus=2, memory="4Gi"), description="Tokenizing.")
    merge: Resources = Field(Resources(cpus=2, memory="8Gi"), description="Merging the adapter.")
    quantize: GpuResources | None = Field(
        None,
        description="GPTQ; above some billions of weights take a GPU (`gpus: 1`). Left out: as `merge`.",
    )
    gguf: Resources | None = Field(None, description="Converting for llama.cpp. Left out: as `merge`.")
    predict: GpuResources = Field(GpuResources(cpus=2, memory="8Gi"), description="Answering the test file.")
    publish: Resources | None = Field(None, description="Uploading what was made. Left out: as `model`.")
    worker: Resources | None = Field(
        None,
        description="One worker's pod, all its workers together. Left out: its share of a node, by GPUs (or, "
        "without GPUs, by the pods a node holds), after head and pilot had theirs.",
    )

    def of(self, stage: str) -> tuple[str, Resources]:
        """What a stage's pod takes, and the field that says so."""
        field = _SAME_POD.get(stage, stage)
        given: Resources | None = getattr(self, field)
        if given is None:
            field = _LIKE[field]
            given = getattr(self, field)
        assert given is not None, field
        return field, given


class Cache(Section):
    """Where workers keep inputs read from the store, on their node: each is fetched once per node."""

    size: Memory = Field("200Gi", description="Most that it may hold.")
    claim: Label | None = Field(
        None,
        description="PersistentVolumeClaim (ReadWriteMany) shared by all pods. Left out: a folder of each "
        "pod, gone with it.",
    )
    host_path: str | None = Field(
        None,
        pattern=ABSOLUTE_PATTERN,
        description="Folder of the node, shared by pods and runs; namespaces labelled `restricted` or "
        "`baseline` refuse it. Left out: as `claim`.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.claim is not None and self.host_path is not None:
            yield Conflict(("host_path", "claim"), "claim and host_path are two places", "keep one of them")
