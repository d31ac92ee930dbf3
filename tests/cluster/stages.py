"""Stages that only pretend, on a real cluster: an image whose programs do what a variable says, plans of one
stage, and a look at what a backend makes of them."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.contract import Plan, PrepareParams, StageKind, StagePlan
from artifacts.store import Store
from launcher.backends import manifest
from launcher.backends.kubernetes import KubernetesBackend
from launcher.backends.rayjob import RAY_VERSION
from launcher.backends.waiting import Object
from launcher.kube import Kube
from launcher.stages.image import Images
from launcher.status import Observation
from tests import plan_parts

_FOLDER = Path(__file__).with_name("stand_in")
_SMALL = {"cpus": 0.2, "memory": "128Mi"}


def build_stand_in(settings: dict[str, str]) -> str:
    """Build and push the image of the stand-ins; its reference. A minute, or seconds where its layers are."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_FOLDER.rglob("*.*"))))
    reference = f"{settings['SLIPWAY_TEST_REGISTRY']}/stand-in:{digest.hexdigest()[:16]}"
    builder = settings.get("SLIPWAY_TEST_BUILDER", "docker")
    plain = ["--tls-verify=false"] if builder != "docker" and reference.startswith("localhost") else []
    arguments = {"BASE": settings["SLIPWAY_TEST_BASE_IMAGE"], "RAY_VERSION": RAY_VERSION}
    build = [builder, "build", *plain, *(["--layers"] if builder != "docker" else []), "--tag", reference]
    build += [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    build += shlex.split(settings.get("SLIPWAY_TEST_BUILDER_OPTIONS", ""))
    for command in ([*build, str(_FOLDER)], [builder, "push", *plain, reference]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    return reference


@dataclass
class Scene:
    """One stage and whoever watches it."""

    plan: Plan
    kube: Kube
    store: Store
    image: str
    run_id: str = ""
    seen: list[tuple[float, Observation]] = field(default_factory=list)  # each that differs from the last

    def __post_init__(self) -> None:
        self.run_id = self.run_id or self.plan.run_id
        self.kube.apply(manifest.plan_config_map(self.plan, self.run_id))
        self.backend = self.another_backend("drive-1")

    @property
    def stage(self) -> StagePlan:
        return self.plan.stages[0]

    @property
    def name(self) -> str:
        return manifest.stage_name(self.stage)

    @property
    def kind(self) -> str:
        return "RayJob" if self.stage.kind == StageKind.TRAIN else "Job"

    def another_backend(self, drive: str) -> KubernetesBackend:
        images = Images(self.image, self.image)
        return KubernetesBackend(self.plan, self.run_id, self.store, self.kube, images, drive)

    def object(self) -> Object | None:
        return self.kube.get(self.kind, self.name)

    def pods(self, role: str = "") -> list[Object]:
        """Those that are not being deleted."""
        labels = f"slipway/key={self.name[-12:]}" + (f",ray.io/node-type={role}" if role else "")
        pods = self.kube.list("Pod", labels=labels)
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def until(
        self,
        reached: Callable[[Observation], Any],
        timeout_s: float = 90,
        backend: KubernetesBackend | None = None,
    ) -> Observation:
        """Observe, as `launcher.run.drive` does, until the observation is as wanted."""
        began = time.monotonic()
        while True:
            observation = (backend or self.backend).observe(self.stage)
            if not self.seen or self.seen[-1][1] != observation:
                self.seen.append((time.time(), observation))
            if reached(observation):
                return observation
            assert time.monotonic() - began < timeout_s, f"after {timeout_s} s: {self.seen}"
            time.sleep(0.3)

    def ended(self, timeout_s: float = 90) -> Observation:
        return self.until(lambda observation: observation.phase == "ended", timeout_s)

    def read_evidence(self, observation: Observation, name: str) -> Any:
        prefix = observation.evidence.removeprefix(f"{self.store.uri}/")
        return json.loads(self.store.read_bytes(f"{prefix}/{name}"))

    def clear(self) -> None:
        self.kube.delete(self.kind, self.name)
        self.kube.delete("ConfigMap", manifest.plan_name(self.run_id))


def make_plan(profile: dict[str, Any], kind: StageKind, does: str, key: str = "") -> Plan:
    """A plan of one stage with a key of its own, whose stand-in does what `does` says."""
    key = key or uuid.uuid4().hex
    params: Any = PrepareParams(max_length=64, packing=True)
    if kind == StageKind.TRAIN:
        params = plan_parts.train_params(world_size=2)
    environment = {**profile.get("environment", {}), f"STAND_IN_{kind.upper()}": does}
    trains = {"head": {"cpus": 1, "memory": "1500Mi"}, "worker": {"cpus": 0.5, "memory": "1Gi"}}
    resources = {"prepare": _SMALL, **trains}
    profile = {**profile, "environment": environment, "resources": resources}
    return Plan(
        name="bot",
        cluster="test",
        backend="kubernetes",
        store=profile["store"],
        engine="ray",
        stages=[plan_parts.stage(kind, params, key.ljust(64, "0"))],
        job={"name": "bot"},
        profile=profile,
    )
