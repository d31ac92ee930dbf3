"""`launcher.backends.looks`: one list for all stages, kept for a moment."""

from __future__ import annotations

from collections import Counter

from launcher.backends.looks import DETAILS_EVERY_S, LIST_EVERY_S, Looks
from launcher.backends.waiting import Object
from tests.launcher.backends.api_answers import answer


class Lists:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.selectors: set[str] = set()
        self.objects = {"Job": [], "RayJob": [], "Pod": [], "Event": []}

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        self.asked[kind] += 1
        self.selectors.add(labels or fields)
        return self.objects[kind]

    def get(self, kind: str, name: str) -> Object | None:
        self.asked[kind] += 1
        return {"metadata": {"name": name}}


def test_lists_are_shared_and_kept_for_a_moment() -> None:
    kube, now_s = Lists(), [0.0]
    job, pods, _ = answer("jobs", "no-gpu")
    training, ray_pods, _ = answer("ray_jobs", "running")
    another = {**pods[0], "metadata": {**pods[0]["metadata"], "ownerReferences": [{"uid": "earlier"}]}}
    kube.objects = {"Job": [job], "RayJob": [training], "Pod": [*pods, another, *ray_pods], "Event": []}
    looks = Looks(kube, ["bb", "aa"], clock=lambda: now_s[0])  # type: ignore[arg-type]
    for _ in range(3):
        found = looks.find("Job", job["metadata"]["name"])
        assert found is not None and looks.pods_of(found) == pods
        trains = looks.find("RayJob", training["metadata"]["name"])
        assert trains is not None and looks.pods_of(trains) == ray_pods
        assert looks.find("Job", "absent") is None
    assert kube.asked == {"Job": 1, "RayJob": 1, "Pod": 1}
    assert kube.selectors == {"slipway/key in (aa,bb)"}
    now_s[0] += LIST_EVERY_S
    looks.find("Job", "absent")
    assert kube.asked["Job"] == 2
    looks.forget("Job")
    looks.find("Job", "absent")
    assert kube.asked["Job"] == 3


def test_pods_of_a_training_without_a_cluster_are_none() -> None:
    kube = Lists()
    suspended, _, _ = answer("ray_jobs", "suspended")
    kube.objects["Pod"] = answer("ray_jobs", "running")[1]
    assert Looks(kube, ["aa"]).pods_of(suspended) == []  # type: ignore[arg-type]


def test_events_and_nodes_are_asked_for_more_seldom() -> None:
    kube, now_s = Lists(), [0.0]
    looks = Looks(kube, ["aa"], clock=lambda: now_s[0])  # type: ignore[arg-type]
    for _ in range(4):
        looks.warnings(["one", "two"])
        looks.node("node1")
        now_s[0] += LIST_EVERY_S
    assert kube.asked == {"Event": 2, "Node": 1}
    now_s[0] += DETAILS_EVERY_S
    looks.warnings(["one"])
    assert kube.asked["Event"] == 3
    assert "type=Warning,involvedObject.name=one" in kube.selectors
