"""The stage on a cluster: in the launcher's image, with the profile's secrets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from artifacts.contract import StageKind
from launcher.backends.local import is_light
from launcher.backends.manifest import stage_object
from launcher.stages.image import Images
from launcher.stages.pods import pod_module, runs_in_cluster
from tests.launcher.publishing import runs
from tests.launcher.publishing.test_ready import PROFILE

SECRET = {"HF_TOKEN": {"secret": "hub", "key": "token"}}


def test_a_pod_that_publishes_gets_the_token_from_its_secret(tmp_path: Path) -> None:
    _, plan = runs.make(tmp_path / "store")
    plan = dataclasses.replace(plan, backend="kubernetes", profile={**PROFILE, "secrets": SECRET})
    stage = plan.stage(StageKind.PUBLISH)
    assert runs_in_cluster(stage) and is_light(stage)
    made = stage_object(plan, "run", stage, Images(pilot="registry/pilot@x", train="registry/train@x"))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/pilot@x"
    assert container["args"][:4] == ["python", "-m", "train.pod", "publish"]
    assert container["args"][-2:] == ["--module", pod_module(stage)]
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert {"name": "HF_TOKEN", "valueFrom": reference} in container["env"]
    assert "hf_" not in json.dumps(made)
