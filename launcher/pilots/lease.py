"""A lock among pods: a Lease object that its holder renews, and that others take over once it has expired.

Of two pilots of one run (the pod of a lost node may live on there, out of reach) only one drives.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Callable

from launcher.errors import ClusterError
from launcher.kube import Kube, KubeError, Object

#: Kubernetes' own components use the same three numbers for their leader election.
DURATION_S = 15.0
RENEW_EVERY_S = 2.0
#: A holder that could not renew for this long gives up, before another may think it dead.
RENEW_DEADLINE_S = 10.0


class Lease:
    """The lease `name`, for `holder` (unique among the pods that may want it). It is removed together with
    `owner`, whose Job the pods belong to.

    `lost` is called, from a thread, when the lease could not be renewed in time or is another's: whoever
    calls it must not do anything more in the name of the lease.
    """

    def __init__(
        self,
        kube: Kube,
        name: str,
        holder: str,
        *,
        owner: Object,
        labels: dict[str, str],
        lost: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kube, self._name, self._holder, self._labels = kube, name, holder, labels
        self._owners = [owner_reference(owner)]
        self._lost, self._clock, self._sleep = lost, clock, sleep
        self._over = threading.Event()
        self._seen = ("", 0.0)  # another holder's last renewal, and when it was first seen
        self._other, self._renewed_at = "", 0.0

    def acquire(self, waiting: Callable[[str], None] = lambda holder: None) -> None:
        """Wait until the lease is ours. `waiting` is told once who has it."""
        told = ""
        while not self._try():
            if self._other != told:
                waiting(self._other)
                told = self._other
            self._sleep(RENEW_EVERY_S)
        self._renewed_at = self._clock()
        for task in (self._renew, self._watch):
            threading.Thread(target=task, name="lease", daemon=True).start()

    def release(self) -> None:
        """Give it up, so that the next pilot need not wait until it expires."""
        self._over.set()
        with contextlib.suppress(ClusterError):
            there = self._kube.get("Lease", self._name)
            if there is not None and there["spec"].get("holderIdentity") == self._holder:
                self._kube.patch("Lease", self._name, self._change(there, {"holderIdentity": ""}))

    def _try(self) -> bool:
        """One attempt. Expiry is judged by this process's own clock, from when a renewal was first seen: the
        clocks of two nodes need not agree."""
        there = self._kube.get("Lease", self._name)
        try:
            if there is None:
                self._kube.create(self._body())
                return True
            spec = there.get("spec") or {}
            self._other = str(spec.get("holderIdentity") or "")
            if self._other and self._other != self._holder and not self._expired(spec):
                return False
            self._kube.patch("Lease", self._name, self._change(there, self._spec()))
        except KubeError as error:
            if error.status == 409:
                return False
            raise
        return True

    def _expired(self, spec: Object) -> bool:
        renewal = f"{spec.get('holderIdentity')} {spec.get('renewTime')}"
        if self._seen[0] != renewal:
            self._seen = (renewal, self._clock())
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds") or DURATION_S)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_EVERY_S):
            with contextlib.suppress(ClusterError):  # out of reach: `_watch` counts the seconds
                if self._try():
                    self._renewed_at = self._clock()
                elif self._other != self._holder:
                    self._lose(f"{self._other} drives now")

    def _watch(self) -> None:
        """In a thread of its own: a request may hang for longer than there is time."""
        while not self._over.wait(1.0):
            if self._clock() - self._renewed_at > RENEW_DEADLINE_S:
                self._lose(f"it could not be renewed for {RENEW_DEADLINE_S:.0f} s")

    def _lose(self, why: str) -> None:
        if not self._over.is_set():
            self._over.set()
            self._lost(why)

    def _body(self) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "labels": self._labels, "ownerReferences": self._owners},
            "spec": self._spec(),
        }

    def _spec(self) -> Object:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
        }

    def _change(self, there: Object, spec: Object) -> Object:
        """A patch that the API server refuses (409) where the object has changed since it was read."""
        version = there["metadata"]["resourceVersion"]
        return {"metadata": {"resourceVersion": version, "ownerReferences": self._owners}, "spec": spec}


def owner_reference(owner: Object) -> Object:
    """What an object says of the one that it belongs to, and is removed with."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
