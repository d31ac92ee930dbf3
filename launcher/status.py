"""Observations to decisions: what happened to a stage, and what to do about it.

Pure: a backend observes, `decide` judges, `launcher.run` acts. Success needs agreement between the exit code
and the commit marker; a disagreement is named and settled by asking once more (a stage that finds its
artifact complete ends at once with exit code 0).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from artifacts.contract import EXIT_DONE, EXIT_DRAINED, EXIT_USER_ERROR

#: absent: no process of it, here or elsewhere; elsewhere: another run's process makes the same artifact.
Phase = Literal["absent", "elsewhere", "running", "ended"]

#: Attempts of one stage in one drive, whatever the reasons and the progress between them.
MAX_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Raw facts about one stage, as a backend sees them."""

    phase: Phase
    exit_code: int | None = None  # once ended; -N: killed by signal N
    committed: bool = False  # the commit marker is in the store
    cause: str = ""  # the stage's own last words (its `failed` event), one line
    advice: str = ""  # ditto: what it says to do
    output: str = ""  # the last lines of its log
    oom_kills: int = 0  # processes that the kernel killed for lack of memory while it ran
    ended_by: str = ""  # what ended it, where that is seen from outside: a name in the failure table
    evidence: str = ""  # where the whole log lies
    note: str = ""  # what is worth knowing meanwhile: why it waits, what was lost; one line


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt that ended badly."""

    failure: str  # name in the failure table
    progressed: bool  # it committed a checkpoint that was not there before


@dataclass(frozen=True)
class Wait:
    """It is running; look again."""


@dataclass(frozen=True)
class Done:
    """Its artifact is complete."""


@dataclass(frozen=True)
class Retry:
    """Start it (again) after `delay_s`. `failure` names the table's row; empty for a first start."""

    delay_s: float
    reason: str
    failure: str = ""


@dataclass(frozen=True)
class Fail:
    """It failed for good: the cause in one line and what to do. `user_error`: the input is at fault."""

    reason: str
    advice: str
    user_error: bool = False


Decision = Wait | Done | Retry | Fail


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One row of the failure table. It matches where every condition that it gives holds."""

    name: str
    cause: str
    advice: str
    exit_codes: tuple[int, ...] = ()
    text: str = ""  # regular expression over exit code, last words and the end of the log
    oom: bool = False  # the kernel killed something on this machine for lack of memory meanwhile
    seen: bool = False  # the backend names it (`Observation.ended_by`)
    retry_delays_s: tuple[float, ...] = ()  # one per retry; empty: trying again would end the same way

    def matches(self, observation: Observation) -> bool:
        if self.exit_codes and observation.exit_code not in self.exit_codes:
            return False
        if self.oom and not observation.oom_kills:
            return False
        if self.seen and observation.ended_by != self.name:
            return False
        words = f"exit code {observation.exit_code}\n{observation.cause}\n{observation.output}"
        return not self.text or re.search(self.text, words) is not None


#: The first row that matches decides. Codes and killed-by-memory first, words second, bare signals last.
FAILURES = (
    # Stopped on request, or by a pilot that went away, after saving: nothing is lost.
    Failure(
        name="drained",
        exit_codes=(EXIT_DRAINED,),
        cause="it saved a checkpoint and stopped",
        advice="`slipway resume RUN` goes on from there",
        retry_delays_s=(0.0, 0.0, 0.0),
    ),
    # What a cluster did to it, as the backend sees it from outside.
    Failure(
        name="memory-limit",
        seen=True,
        cause="it reached its memory limit and was killed",
        advice="raise `resources` of the stage in the cluster profile, or lower training.micro_batch_size",
    ),
    Failure(
        name="preempted",
        seen=True,
        cause="something of a higher priority took its place",
        advice="raise queue.priority_class in the cluster profile, or submit when the cluster is quieter",
        retry_delays_s=(1.0, 10.0, 60.0, 300.0, 900.0),
    ),
    Failure(
        name="evicted",
        seen=True,
        cause="its node put it out",
        advice="raise `resources` of the stage in the cluster profile where the node ran out of something",
        retry_delays_s=(5.0, 60.0, 300.0),
    ),
    Failure(
        name="node-lost",
        seen=True,
        cause="its node was lost",
        advice="`kubectl get nodes` tells which; mend or remove it",
        retry_delays_s=(1.0, 10.0, 60.0, 300.0),
    ),
    Failure(
        name="deleted",
        seen=True,
        cause="somebody deleted it",
        advice="`slipway cancel RUN` stops a run for good; `slipway resume RUN` goes on with it",
        retry_delays_s=(1.0, 30.0),
    ),
    Failure(
        name="cluster-trouble",
        seen=True,
        cause="the cluster lost track of it",
        advice="look at the operator's log, and at the evidence",
        retry_delays_s=(5.0, 60.0, 300.0),
    ),
    Failure(
        name="stopped",
        seen=True,
        cause="somebody stopped it in the cluster",
        advice="`slipway resume RUN` goes on from its newest checkpoint",
    ),
    Failure(
        name="deadline",
        seen=True,
        cause="it took longer than the cluster profile allows",
        advice="raise `limits` in the cluster profile; `slipway resume RUN` goes on from there",
    ),
    Failure(
        name="never-started",
        seen=True,
        cause="it could not start",
        advice="`slipway doctor` checks the cluster",
    ),
    # Host memory: the kernel's counter of OOM kills rose, and the stage or a worker of it died by SIGKILL.
    Failure(
        name="out-of-memory",
        oom=True,
        text=r"exit ?code\s*:? -9\b|SIGKILL",
        cause="the kernel killed it: this machine ran out of memory",
        advice="lower training.micro_batch_size or training.max_length, use fewer compute.workers, "
        "or free memory on this machine",
    ),
    Failure(
        name="gpu-out-of-memory",
        text=r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        cause="a GPU ran out of memory",
        advice="lower training.micro_batch_size or training.max_length, set training.gradient_checkpointing: "
        "true, or strategy: zero3 with offload: optimizer",
    ),
    Failure(
        name="disk-full",
        text=r"No space left on device|\[Errno 28\]|Disk quota exceeded",
        cause="a disk is full",
        advice="free space (`slipway gc` removes what no run refers to), or put `store` and `work` of the "
        "cluster profile on a larger disk",
    ),
    Failure(
        name="shared-memory",
        text=r"unable to (open|allocate|write).*shared memory|/dev/shm",
        cause="shared memory (/dev/shm) is exhausted",
        advice="enlarge /dev/shm (for a container: --shm-size)",
    ),
    # Ports are chosen free, but between choosing and binding somebody else may take one.
    Failure(
        name="port-taken",
        text=r"EADDRINUSE|[Aa]ddress already in use|server socket has failed to (listen|bind)",
        cause="a network port was taken by another process",
        advice="run again; if it stays, look for left-over processes with `ss -ltnp`",
        retry_delays_s=(1.0, 5.0, 15.0),
    ),
    # Collectives fail where a peer died or a link broke: the peer's own death is often only in its log.
    Failure(
        name="communication",
        text=r"NCCL (error|WARN)|ncclSystemError|ncclUnhandledCudaError|ncclRemoteError|"
        r"Connection closed by peer|Connection reset by peer|Watchdog caught collective operation timeout|"
        r"Timed out waiting \d+ms for (recv|send) operation|RendezvousTimeoutError",
        cause="the workers lost contact with one another",
        advice="look for the first worker that died in `slipway logs RUN --stage train`; with NCCL, "
        "NCCL_DEBUG=INFO tells more",
        retry_delays_s=(5.0, 30.0, 60.0),
    ),
    # A GPU that fell off the bus, or an ECC error: a restart may land on a sound one, but not for long.
    Failure(
        name="gpu-fault",
        text=r"uncorrectable ECC|CUDA error: (an illegal|device-side assert|unspecified launch)|"
        r"GPU has fallen off the bus|no CUDA-capable device|CUDA driver version is insufficient",
        cause="a GPU or its driver failed",
        advice="`nvidia-smi` and `dmesg` name the device; take it out or reset it",
        retry_delays_s=(10.0,),
    ),
    Failure(
        name="hub-refused",
        text=r"GatedRepoError|RepositoryNotFoundError|RevisionNotFoundError|40[134] Client Error",
        cause="the hub refused the model",
        advice="check the repository's name and revision, accept its licence on the hub, and set HF_TOKEN",
    ),
    Failure(
        name="network",
        text=r"Temporary failure in name resolution|Name or service not known|Max retries exceeded|"
        r"Network is unreachable|(429|50[0234]) (Client|Server) Error|ReadTimeout|ConnectTimeout",
        cause="a remote service could not be reached",
        advice="check the network (HF_ENDPOINT names a mirror) and submit again: what was loaded is kept",
        retry_delays_s=(5.0, 30.0, 120.0),
    ),
    Failure(
        name="permission",
        text=r"PermissionError|\[Errno 13\]|Read-only file system|\[Errno 30\]",
        cause="a file or folder may not be read or written",
        advice="check the owner and mode of the path named in the log",
    ),
    # Signals with nothing said. SIGKILL without an OOM kill: an operator, a batch system, a container limit.
    Failure(
        name="killed",
        exit_codes=(-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP),
        cause="something outside killed it",
        advice="look for who sent the signal (an operator, a batch system, a container's memory limit)",
        retry_delays_s=(1.0, 10.0, 30.0),
    ),
    Failure(
        name="illegal-instruction",
        exit_codes=(-signal.SIGILL,),
        cause="a library is built for another CPU",
        advice="reinstall torch and DeepSpeed for this machine (`make setup`)",
    ),
    Failure(
        name="crashed",
        exit_codes=(-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE),
        cause="a native library crashed",
        advice="the log's end names the library; try strategy: ddp, and without extra kernels",
        retry_delays_s=(1.0,),
    ),
)

_DISAGREEMENT = Failure(
    name="disagreement",
    cause="exit code and commit marker disagree",
    advice="`slipway verify KEY` re-reads the artifact; `slipway logs RUN` shows how the stage ended",
    retry_delays_s=(0.0,),
)


def decide(observation: Observation, history: Sequence[Attempt] = ()) -> Decision:
    """What to do about a stage, given what is seen and how its earlier attempts ended."""
    if observation.phase == "absent":
        return Done() if observation.committed else Retry(0.0, "not started")
    if observation.phase != "ended":
        return Wait()
    code = observation.exit_code
    if (code == EXIT_DONE) != observation.committed:
        marker = "there" if observation.committed else "missing"
        reason = f"exit code {code}, but the commit marker is {marker}"
        return _within_budget(_DISAGREEMENT, reason, observation, history)
    if observation.committed:
        return Done()
    if code == EXIT_USER_ERROR:
        return Fail(observation.cause or "the input is at fault", observation.advice, user_error=True)
    failure = classify(observation)
    if failure is None:
        cause = observation.cause or last_line(observation.output) or f"exit code {code}"
        return Fail(cause, observation.advice or "the end of its log says more")
    return _within_budget(failure, _in_words(failure, observation), observation, history)


def classify(observation: Observation) -> Failure | None:
    """The table's row for a stage that ended badly. A stage that gave advice knows better than any words of
    its log: then only what is seen from outside counts, and the result may be None."""
    from_outside = [failure for failure in FAILURES if failure.oom or failure.seen or failure.exit_codes]
    rows = from_outside if observation.advice else FAILURES
    return next((failure for failure in rows if failure.matches(observation)), None)


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _within_budget(
    failure: Failure, reason: str, observation: Observation, history: Sequence[Attempt]
) -> Retry | Fail:
    """Retry as often as the row allows. An attempt that got further than the one before starts anew."""
    since_progress: list[Attempt] = []
    for attempt in history:
        since_progress = [] if attempt.progressed else [*since_progress, attempt]
    used = sum(attempt.failure == failure.name for attempt in since_progress)
    if used < len(failure.retry_delays_s) and len(history) < MAX_ATTEMPTS:
        return Retry(failure.retry_delays_s[used], reason, failure.name)
    tried = f" (tried {len(history) + 1} times)" if history else ""
    return Fail(f"{reason}{tried}", observation.advice or failure.advice)


def _in_words(failure: Failure, observation: Observation) -> str:
    code = observation.exit_code or 0
    if code < 0 and not failure.seen:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{failure.cause} ({name})"
    return f"{failure.cause}: {observation.cause}" if observation.cause else failure.cause
