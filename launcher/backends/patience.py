"""How long a stage's reasons to wait have lasted: when they are told, and when they end the stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from launcher.backends.endings import Ending
from launcher.backends.lost_nodes import unix_s
from launcher.backends.pods import PodFact, is_pending
from launcher.kube import Object

#: A reason to wait is told once it has lasted so long: some pass by themselves (a Secret made just after).
TELL_AFTER_S = 3.0
#: What only somebody's action can mend (an image, a Secret) ends the stage after so long.
MENDABLE_S = 300.0


class Patience:
    """With one attempt. `pending_s`: the profile's limit. `clock` is monotonic, `now` Unix time."""

    def __init__(self, pending_s: float, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._pending_s, self._clock, self._now = pending_s, clock, now
        self._since: dict[str, float] = {}  # reason -> first seen
        self._no_pods_since: float | None = None

    def lasting(self, facts: Sequence[PodFact]) -> list[PodFact]:
        """The facts, without reasons to wait that are too new to be told. Called at each look."""
        now = self._clock()
        present = {fact.waiting for fact in facts if fact.waits not in (None, "starting")}
        self._since = {reason: self._since.get(reason, now) for reason in present}
        return [fact for fact in facts if now - self._since.get(fact.waiting, 0.0) >= TELL_AFTER_S]

    def end(self, pods: Sequence[Object], facts: Sequence[PodFact]) -> Ending | None:
        """The ending of a stage that has waited longer than it may. `facts`: those that last."""
        now = self._clock()
        for fact in facts:
            lasts_s = now - self._since.get(fact.waiting, now)
            if fact.waits in ("image", "settings") and lasts_s >= min(MENDABLE_S, self._pending_s):
                return Ending(None, "never-started", fact.waiting, fact.advice)
        if self._waited_s(pods) < self._pending_s:
            return None
        why = next((fact for fact in facts if fact.phase == "pending" and fact.waiting), None)
        reason = why.waiting if why else "its pods did not start"
        waited = f"it waited for {self._pending_s:g} s (limits.pending_s): {reason}"
        return Ending(None, "never-started", waited, why.advice if why else "")

    def _waited_s(self, pods: Sequence[Object]) -> float:
        """How long the oldest of its pods has been pending; without any, for how long there has been none."""
        if not pods:
            self._no_pods_since = self._clock() if self._no_pods_since is None else self._no_pods_since
            return self._clock() - self._no_pods_since
        self._no_pods_since = None
        pending = [pod for pod in pods if is_pending(pod)]
        made_s = [unix_s(pod["metadata"]["creationTimestamp"]) for pod in pending]
        return max((self._now() - at_s for at_s in made_s), default=0.0)
