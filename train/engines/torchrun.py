"""Engine `torchrun`: torch's elastic launcher as a library, for ranks on this machine.

Ranks are forked from this process, in which the libraries are already imported, so they start at once. The
launcher's own restarts are not used: whether a broken group starts again is decided here, by what its ranks
said (`base.decide`), and each start is an attempt of its own.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from train.engines.base import RankJob
from train.engines.supervise import supervise
from train.processes import available_cores, die_with_parent
from train.stage import StageContext

MONITOR_EVERY_S = 0.05
# Ranks that outlive another one get SIGTERM, then SIGKILL after this: they only wait for a peer that is gone.
SHUTDOWN_S = 3


class StopFlag:
    """Raised by SIGTERM or SIGINT to the launcher, seen by the ranks forked from it (shared memory). A rank's
    own SIGTERM stays its own: the launcher sends it to what is left of a broken group, too."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)
        self._own = False

    def raise_for_all(self, *_: int | FrameType | None) -> None:
        self._shared[0] = 1

    def raise_here(self, *_: int | FrameType | None) -> None:
        self._own = True

    def is_raised(self) -> bool:
        return self._own or self._shared[0] == 1


def run(job: RankJob, context: StageContext) -> str:
    """Run the ranks to their end: "done" or "drained". Raises StageError when it is no use to go on."""
    from train.preload import preload

    preload()
    stop = StopFlag()
    _on_signals(stop.raise_for_all)
    world_size = context.stage.params.world_size
    return supervise(
        job, context, lambda attempt: _launch(attempt, world_size, stop), stopping=stop.is_raised
    )


def _launch(job: RankJob, world_size: int, stop: StopFlag) -> str | None:
    """One attempt. None when every rank ended well; else which one was seen to be killed, in words, or ""."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["OMP_NUM_THREADS"] = str(max(1, available_cores() // world_size))
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # forked ranks can't use a CUDA context made here
    logs = Path(job.work, "ranks")
    logs.mkdir(parents=True, exist_ok=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world_size,
        run_id=f"{job.run_id}-{job.attempt}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # a free port
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=MONITOR_EVERY_S,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
        signals_to_handle="SIGQUIT",  # the others are handled by StopFlag
        shutdown_timeout=SHUTDOWN_S,
    )
    try:
        elastic_launch(config, _rank)(job, stop, os.getpid())
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return f"rank {rank} was killed by {failure.signal_name()}" if failure.exitcode < 0 else ""
    return None


def _rank(job: RankJob, stop: StopFlag, launcher: int) -> str:
    die_with_parent(launcher)
    _on_signals(stop.raise_here)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name need not resolve
    import torch.distributed as dist

    from train.engines.ranks import run_rank

    ending = run_rank(job, stop.is_raised, lambda step: None)
    if dist.is_initialized():
        dist.destroy_process_group()
    return ending


def _on_signals(handler: Callable[..., None]) -> None:
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
