"""What a thousand workers cost the launcher: rendering a run's objects, and one look at its pods.

    python bench/scale.py [--workers 1000] [--repeat 5]

Renders all objects of a run (plan, pilot, RayJob, Jobs) as JSON, from the plan as it is read. Then a stand-in
for the API server, on this machine, holds one pod for each worker (the rendered one, with the status of a
running pod) and warning events; `KubernetesPilots.members`, from which `slipway status` is made, looks at it
through `launcher.kube`. Beside it the same two lists through the official client's own classes. Medians;
requests are counted by the server.

Bars: rendering 100 ms; one status at most 2 lists.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from kubernetes import client  # noqa: E402

from artifacts.contract import Plan, StageKind  # noqa: E402
from artifacts.local import LocalStore  # noqa: E402
from launcher.backends import manifest  # noqa: E402
from launcher.kube import Kube  # noqa: E402
from launcher.pilots.kubernetes import KubernetesPilots  # noqa: E402
from launcher.planning.placement import place  # noqa: E402
from launcher.spec.kubernetes import KubernetesCluster  # noqa: E402
from tests.launcher.kubernetes_plans import CPU, GPU, IMAGES, kubernetes_plan  # noqa: E402

RUN = "bot-0123abcd"
STAGES = (StageKind.MODEL, StageKind.PREPARE, StageKind.TRAIN, StageKind.MERGE, StageKind.PREDICT)
EVENTS = 200
Object = dict[str, Any]


def median_ms(what: Callable[[], object], repeat: int) -> float:
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        what()
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def render(plan_json: bytes) -> str:
    plan = Plan.from_json(plan_json)
    stages = [manifest.stage_object(plan, RUN, plan.stage(kind), IMAGES, "uid") for kind in STAGES]
    return json.dumps([*manifest.run_objects(plan, RUN, IMAGES), *stages])


def running_pods(plan: Plan, count: int) -> list[Object]:
    """What the API server would answer for the workers of the plan's training."""
    body = manifest.stage_object(plan, RUN, plan.stage(StageKind.TRAIN), IMAGES, "uid")
    (group,) = body["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    moment = "2026-01-01T00:00:00Z"
    pods = []
    for number in range(count):
        pod = copy.deepcopy(group["template"])
        node = f"node-{number}"
        pod["metadata"] |= {"name": f"worker-{number}", "uid": f"uid-{number}", "creationTimestamp": moment}
        pod["metadata"]["labels"] |= {"ray.io/node-type": "worker", "ray.io/cluster": "cluster"}
        pod["spec"]["nodeName"] = node
        state = {
            "name": "slipway",
            "image": IMAGES.train,
            "imageID": IMAGES.train,
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": moment}},
        }
        kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": moment} for kind in kinds]
        pod["status"] = {"phase": "Running", "conditions": conditions, "containerStatuses": [state]}
        pods.append(pod)
    return pods


def warnings(count: int) -> list[Object]:
    moment = "2026-01-01T00:00:00Z"
    return [
        {
            "metadata": {"name": f"event-{number}", "namespace": "slipway"},
            "involvedObject": {"kind": "Pod", "name": f"worker-{number}", "uid": f"uid-{number}"},
            "type": "Warning",
            "reason": "Unhealthy",
            "message": "Readiness probe failed: connection refused",
            "lastTimestamp": moment,
        }
        for number in range(count)
    ]


class ApiServer(BaseHTTPRequestHandler):
    """Answers GET of the lists it holds."""

    protocol_version = "HTTP/1.1"
    lists: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        kind = self.path.partition("?")[0].rpartition("/")[2]
        self.asked.append(kind)
        body = self.lists[kind]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(pods: list[Object], events: list[Object]) -> str:
    for kind, name, items in (("pods", "PodList", pods), ("events", "EventList", events)):
        body = {"kind": name, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
        ApiServer.lists[kind] = json.dumps(body).encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    repeat = options.repeat

    print(f"{'rendering a run, all stages':44} {'pods':>6} {'kB':>8} {'ms':>8}")
    for name, profile in (("CPU nodes", CPU), ("nodes of 8 GPUs", GPU)):
        plan = kubernetes_plan(profile, options.workers)
        text = plan.to_json()
        pods = place(options.workers, KubernetesCluster.model_validate(profile)).pods
        taken_ms = median_ms(lambda text=text: render(text), repeat)
        print(f"{name:44} {pods:6} {len(render(text)) / 1e3:8.0f} {taken_ms:8.1f}")

    plan = kubernetes_plan(CPU, options.workers)
    settings = client.Configuration(host=serve(running_pods(plan, options.workers), warnings(EVENTS)))
    profile = KubernetesCluster.model_validate(CPU)
    kube = Kube(client.ApiClient(settings), "slipway")
    pilots = KubernetesPilots("example", LocalStore(Path("/nonexistent")), profile, connect=lambda: kube)
    official = client.CoreV1Api(client.ApiClient(settings))

    def status() -> None:
        assert len(pilots.members(plan, RUN)) == options.workers

    def by_classes() -> None:
        official.list_namespaced_pod("slipway", label_selector=f"slipway/run={RUN}")
        official.list_namespaced_event("slipway", field_selector="type=Warning")

    size_mb = sum(map(len, ApiServer.lists.values())) / 1e6
    what = f"one look at {options.workers} pods, {EVENTS} events ({size_mb:.1f} MB)"
    print(f"\n{what:44} {'lists':>6} {'ms':>17}")
    looks = {"slipway status": status, "official client's classes, the lists alone": by_classes}
    for name, look in looks.items():
        ApiServer.asked.clear()
        look()
        asked = len(ApiServer.asked)
        print(f"{name:44} {asked:6} {median_ms(look, repeat):17.0f}")


if __name__ == "__main__":
    main()
