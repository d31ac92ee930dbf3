"""`slipway dashboard` on a real Ray head: the proxy's token is taken, any other is not."""

from __future__ import annotations

import http.client
import json

import pytest

from artifacts.contract import StageKind
from launcher.kube import Kube
from launcher.pilots.dashboard import DASHBOARD_PORT, DashboardProxy, find_head, open_dashboard
from launcher.pilots.tunnel import Tunnel
from tests.cluster.conftest import Place
from tests.cluster.runs import wait_until
from tests.cluster.stages import Scene, build_stand_in, make_plan


def ask(proxy: DashboardProxy) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=60)
    connection.request("GET", "/api/jobs/")
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.timeout(900)
def test_the_dashboard_of_a_training(place: Place, kube: Kube, settings: dict[str, str]) -> None:
    plan = make_plan(place.profile.model_dump(mode="json"), StageKind.TRAIN, "sleep:600")
    scene = Scene(plan, kube, place.store, build_stand_in(settings))
    scene.backend.start(scene.stage)
    try:
        wait_until("the head runs", lambda: running(kube, scene.run_id), timeout_s=600)
        with open_dashboard(kube, scene.run_id) as proxy:
            status, body = wait_until(
                "the dashboard answers", lambda: (found := ask(proxy))[0] == 200 and found, timeout_s=120
            )
            assert isinstance(json.loads(body), list) and status == 200
        pod, token = find_head(kube, scene.run_id)
        assert token and token not in proxy.url
        for wrong in ("", "wrong"):
            proxy = DashboardProxy(lambda: Tunnel.open(kube, pod, DASHBOARD_PORT), wrong)
            try:
                assert ask(proxy)[0] in (401, 403)
            finally:
                proxy.close()
    finally:
        scene.clear()


def running(kube: Kube, run_id: str) -> bool:
    heads = kube.list("Pod", labels=f"slipway/run={run_id},ray.io/node-type=head")
    return any(pod.get("status", {}).get("phase") == "Running" for pod in heads)
