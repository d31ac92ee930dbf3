"""Engine `ray`: Ray Train's TorchTrainer, on a Ray cluster (RAY_ADDRESS) or on one started on this machine.

Checkpoints are ours alone (`train.checkpoint`): `ray.train.report` carries a heartbeat, no checkpoint, so
Ray's storage path may be a folder of this machine. Each start of the group is a `fit` of its own
(`supervise`): Ray's restarts know nothing of what the ranks said, nor of requests to stop while machines are
missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from artifacts.contract import Plan, StageKind, TrainParams, canonical_json
from artifacts.events import stop_key
from train import drain
from train.attempts import read_endings, stop_attempt_key
from train.engines.base import RankJob
from train.engines.machines import Demand, Machine, machines_of
from train.engines.supervise import supervise
from train.processes import available_cores
from train.stage import Drained, StageContext, StageError

HEARTBEAT_STEPS = 100
POLL_S = 0.5

#: How long a training waits for machines that its cluster has lost, where the plan's profile does not say.
WAIT_S = 24 * 3600.0

ROOT = Path(__file__).resolve().parents[2]

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how soon the driver notices that ranks ended; 2 otherwise
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray's notice of a node to be drained, which nobody gives on Kubernetes: there it is `train.drain`.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# A Ray started here serves one training on one machine.
_LOCAL_ENVIRONMENT = {"RAY_enable_metrics_collection": "0"}
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's least; nothing large travels through it


def run(job: RankJob, context: StageContext) -> str:
    """Run the ranks to their end: "done" or "drained". Raises StageError when it is no use to go on."""
    os.environ.update(_ENVIRONMENT)
    if not on_cluster():
        os.environ.update(_LOCAL_ENVIRONMENT)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    work = Path(job.work)
    with drain.busy(work), ThreadPoolExecutor(1) as pool:
        group = _Group(context, work, pool)
        return supervise(job, context, group.launch, stopping=group.is_stopping)


def on_cluster() -> bool:
    return "RAY_ADDRESS" in os.environ


@contextlib.contextmanager
def _connected(world_size: int) -> Iterator[None]:
    """Connected to Ray, for one attempt: all that it may leave, as reserved resources, ends with it."""
    import ray

    if on_cluster():
        ray.init(log_to_driver=False)  # the ranks' output is in logs of their own
    else:
        ray.init(
            num_cpus=max(world_size, available_cores()),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level="warning",
        )
    try:
        yield
    finally:
        ray.shutdown()


class _Group:
    """Starts the ranks, attempt by attempt."""

    def __init__(self, context: StageContext, work: Path, pool: ThreadPoolExecutor) -> None:
        self._context, self._work, self._pool = context, work, pool
        self._prefix = f"train/{context.stage.key}"
        params: TrainParams = context.stage.params
        self._demand = Demand(
            workers=params.world_size,
            on_gpu=params.accelerator is not None,
            apart=context.plan.backend == "kubernetes" and params.accelerator is None,
        )
        limits = context.plan.profile.get("limits", {})
        self._wait_s = float(limits.get("pending_s", WAIT_S))
        self._signalled = False

    def _signal(self, *_: Any) -> None:
        self._signalled = True

    def is_stopping(self) -> bool:
        """Whether the run is asked to stop, or this machine."""
        return self._is_stopping_here() or self._context.store.exists(stop_key(self._context.run_id))

    def launch(self, job: RankJob) -> str | None:
        with _connected(self._demand.workers):
            for number in (signal.SIGTERM, signal.SIGINT):  # Ray has taken them
                signal.signal(number, self._signal)
            machines = self._await_machines(leaving=self._leaving(job.attempt - 1))
            # In the main thread, fit() would take SIGINT again.
            fitting = self._pool.submit(_fit, job, self._demand, machines)
            told = False
            while not wait([fitting], POLL_S).done:
                if not told and self._is_stopping_here():
                    told = self._tell_ranks(job.attempt)
            return fitting.result()

    def _is_stopping_here(self) -> bool:
        return self._signalled or drain.is_asked_to_stop(self._work)

    def _tell_ranks(self, attempt: int) -> bool:
        request = canonical_json({"time_s": round(time.time(), 3)})
        with contextlib.suppress(Exception):  # a store out of reach: told with the next look
            return self._context.store.write_bytes(stop_attempt_key(self._prefix, attempt), request)
        return False

    def _leaving(self, attempt: int) -> set[str]:
        """Machines that ranks of that attempt have left because they are about to end."""
        endings = read_endings(self._context.store, self._prefix, attempt) if attempt else []
        return {ending.machine for ending in endings if ending.machine}

    def _await_machines(self, leaving: set[str]) -> list[Machine]:
        """Raises Drained where there is a request to stop before all are there, StageError after too long."""
        import ray

        deadline, told = time.monotonic() + self._wait_s, -1
        while True:
            machines = machines_of(ray.nodes(), leaving)
            places = self._demand.places_of(machines)
            if places == self._demand.workers:
                return machines
            if self.is_stopping():
                raise Drained("stopped on request while waiting for machines", "resume continues from there")
            if time.monotonic() > deadline:
                raise StageError(
                    f"the cluster has had room for {places} of {self._demand.workers} workers for "
                    f"{self._wait_s:.0f} s",
                    "ask the cluster why the others' machines don't come",
                )
            if places != told:
                told = places
                text = f"waits for machines: room for {places} of {self._demand.workers} workers"
                self._context.events.say("note", text=text)
            time.sleep(POLL_S)


def _fit(job: RankJob, demand: Demand, machines: list[Machine]) -> str | None:
    """One attempt. None when every rank ended well; else what was seen of its end, in words, or ""."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

    trainer = TorchTrainer(
        _rank,
        train_loop_config={**dataclasses.asdict(job), "on_cluster": on_cluster()},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if demand.on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=demand.workers,
            use_gpu=demand.on_gpu,
            resources_per_worker=demand.resources(machines),
            placement_strategy="PACK",  # ranks of one machine are neighbours
        ),
        run_config=RunConfig(
            name=f"{job.run_id}-{job.attempt}",
            storage_path=str(Path(job.work, "ray")),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except ControllerError as error:
        return f"the workers did not start ({str(error.controller_failure).splitlines()[0]})"
    except TrainingFailedError:
        return ""  # the ranks have told the store
    return None


def _rank(config: dict[str, Any]) -> str:
    """The training function that Ray runs in a thread of each worker, its process group already standing."""
    import ray.train

    from train.tee import teed

    cluster = config.pop("on_cluster")
    job = RankJob(**config)
    work = Path(job.work)
    plan = Plan.from_json(job.plan_json)
    source = f"rank-{ray.train.get_context().get_world_rank()}"

    def on_step(step: int) -> None:
        if step % HEARTBEAT_STEPS == 0:
            ray.train.report({"step": step})

    with contextlib.ExitStack() as stack:
        work.mkdir(parents=True, exist_ok=True)
        stack.enter_context(drain.busy(work))
        if cluster:
            stack.enter_context(teed(plan.store, job.run_id, StageKind.TRAIN, source))
        from train.engines.ranks import Place, run_rank

        if not cluster:
            return run_rank(job, lambda: False, on_step)
        place = Place(
            node=os.environ.get("NODE_NAME", socket.gethostname()),
            pod=os.environ.get("POD_NAME", f"pid {os.getpid()}"),
            machine=ray.get_runtime_context().get_node_id(),
        )
        return run_rank(job, lambda: drain.is_asked_to_stop(work), on_step, place)
