"""A lock among pods: a Lease object that its holder renews, and that others take over once it has expired.

Of two pilots of one run (the pod of a lost node may live on there, out of reach) only one drives.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator

from launcher.errors import ClusterError
from launcher.kube import Kube, KubeError, Object

#: Kubernetes' own components use the same three numbers for their leader election.
DURATION_S = 15.0
RENEW_EVERY_S = 2.0
#: A holder that could not renew for this long gives up, before another may think it dead.
RENEW_DEADLINE_S = 10.0


class Lease:
    """The lease `name`, for `holder` (unique among the pods that may want it).

    `lost` is called, from a thread, when the lease could not be renewed in time or is another's: whoever
    calls it must not do anything more in the name of the lease.
    """

    def __init__(
        self,
        kube: Kube,
        name: str,
        holder: str,
        *,
        labels: dict[str, str],
        lost: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kube, self._name, self._holder, self._labels = kube, name, holder, labels
        self._lost, self._clock, self._sleep = lost, clock, sleep
        self._over = threading.Event()
        self._seen: tuple[str, float] = ("", 0.0)  # another holder's last renewal, and when it was first seen

    def acquire(self, waiting: Callable[[str], None] = lambda holder: None) -> None:
        """Wait until the lease is ours. `waiting` is told once who has it."""
        told = False
        while not self._try():
            if not told:
                waiting(self._other)
                told = True
            self._sleep(RENEW_EVERY_S)
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def release(self) -> None:
        """Give it up, so that the next pilot need not wait until it expires."""
        self._over.set()
        with contextlib.suppress(ClusterError):
            there = self._kube.get("Lease", self._name)
            if there is not None and there["spec"].get("holderIdentity") == self._holder:
                self._kube.replace({**there, "spec": {**there["spec"], "holderIdentity": ""}})

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
            self._kube.replace({**there, "spec": self._spec()})  # refused if it has changed since
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
        renewed_at = self._clock()
        while not self._over.wait(RENEW_EVERY_S):
            try:
                if not self._try():
                    return self._lost(f"{self._other} drives now")
                renewed_at = self._clock()
            except ClusterError as error:
                if self._clock() - renewed_at > RENEW_DEADLINE_S:
                    return self._lost(str(error))

    def _body(self) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "labels": self._labels},
            "spec": self._spec(),
        }

    def _spec(self) -> Object:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
        }
