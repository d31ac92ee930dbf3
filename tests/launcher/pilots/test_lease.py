"""`launcher.pilots.lease`: of several that want it, one holds it, and knows when it no longer does."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from launcher.errors import ClusterError
from launcher.pilots import lease
from launcher.pilots.lease import DURATION_S, Lease
from tests.launcher.driving import wait_for
from tests.launcher.fake_kube import FakeKube

OWNER = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slipway-pilot-bot-1", "uid": "u1"}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make(kube: FakeKube, holder: str, lost: list[str] | None = None, **options: Any) -> Lease:
    said = lost if lost is not None else []
    return Lease(
        kube,  # type: ignore[arg-type]
        "bot-1",
        holder,
        owner=OWNER,
        labels={"slipway/run": "bot-1"},
        lost=said.append,
        **options,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.02)


def holder(kube: FakeKube) -> str:
    return str(kube.objects[("Lease", "bot-1")]["spec"]["holderIdentity"])


def test_the_first_holds_it_and_it_goes_with_its_job() -> None:
    kube = FakeKube()
    make(kube, "pod-1").acquire()
    made = kube.objects[("Lease", "bot-1")]
    assert holder(kube) == "pod-1"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"


def test_another_waits_until_the_holder_has_not_renewed_for_as_long_as_it_lasts() -> None:
    kube, clock, told = FakeKube(), Clock(), []
    first = make(kube, "pod-1")
    assert first._try()  # a holder that is never heard of again
    second = make(kube, "pod-2", clock=clock, sleep=clock.sleep)
    second.acquire(told.append)
    assert holder(kube) == "pod-2" and told == ["pod-1"]
    assert DURATION_S < clock.now < DURATION_S + 1


def test_a_holder_that_renews_is_never_overtaken() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = make(kube, "pod-1"), make(kube, "pod-2", clock=clock)
    assert first._try()
    for _ in range(10):
        assert not second._try()
        clock.now += DURATION_S * 0.9
        time.sleep(0.001)  # renewals are told apart by their time
        assert first._try()


def test_of_two_that_find_it_expired_one_takes_it() -> None:
    kube = FakeKube()
    assert make(kube, "pod-0")._try()
    clock = Clock()
    both = [make(kube, f"pod-{i}", clock=clock) for i in (1, 2)]
    assert [each._try() for each in both] == [False, False]
    clock.now = DURATION_S + 1
    get, barrier = kube.get, threading.Barrier(2)

    def get_together(kind: str, name: str) -> Any:
        found = get(kind, name)
        barrier.wait(5)
        return found

    kube.get = get_together  # type: ignore[method-assign]
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda each=each: answers.append(each._try())) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [False, True]


def test_released_it_is_free_at_once() -> None:
    kube = FakeKube()
    first = make(kube, "pod-1")
    first.acquire()
    first.release()
    second = make(kube, "pod-2")
    assert second._try() and holder(kube) == "pod-2"
    first.release()  # no longer its own to give up
    assert holder(kube) == "pod-2"


def test_a_holder_learns_that_another_has_it() -> None:
    kube, lost = FakeKube(), []
    make(kube, "pod-1", lost).acquire()
    kube.objects[("Lease", "bot-1")]["spec"]["holderIdentity"] = "pod-2"
    wait_for(lambda: lost)
    assert lost == ["pod-2 drives now"]


def test_a_holder_that_can_not_renew_gives_up_before_another_may_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "RENEW_DEADLINE_S", 0.5)
    kube, lost = FakeKube(), []
    make(kube, "pod-1", lost).acquire()

    def hangs(*_: object) -> None:
        time.sleep(3)
        raise ClusterError("GET lease", "the API server can't be reached")

    kube.get = hangs  # type: ignore[method-assign, assignment]
    began = time.monotonic()
    wait_for(lambda: lost)
    assert "could not be renewed" in lost[0] and time.monotonic() - began < 2.5


def test_a_passing_trouble_costs_nothing() -> None:
    kube, lost = FakeKube(), []
    make(kube, "pod-1", lost).acquire()
    get, failures = kube.get, iter(range(3))

    def sometimes(kind: str, name: str) -> Any:
        if next(failures, None) is not None:
            raise ClusterError("GET lease", "the API server can't be reached")
        return get(kind, name)

    kube.get = sometimes  # type: ignore[method-assign]
    time.sleep(0.3)
    assert not lost and next(failures, None) is None
