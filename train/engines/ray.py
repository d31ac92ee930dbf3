"""Engine `ray`: Ray Train's TorchTrainer, on a Ray cluster or on one started on this machine.

Checkpoints are ours alone (`train.checkpoint`): `ray.train.report` carries a heartbeat, no checkpoint. A rank
that dies makes Ray start the group again, as a new attempt.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from artifacts.contract import TrainParams
from train.attempts import latest_attempt, read_endings
from train.engines.base import GiveUp, RankJob
from train.stage import StageContext, StageError

# Ray counts every restart of the group, whatever was saved in between. The ranks themselves give up earlier
# when restarts are no use (`ranks.run_rank`); this one is for groups that don't even come so far.
MAX_RESTARTS = 10
HEARTBEAT_STEPS = 100

ROOT = Path(__file__).resolve().parents[2]

# A Ray started here serves one training on one machine: what is for clusters and statistics stays off.
_LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how soon the driver notices that ranks ended; 2 otherwise
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's least; nothing large travels through it


def run(job: RankJob, context: StageContext) -> str:
    """Run the ranks to their end: "done" or "drained". Raises StageError when it is no use to go on."""
    on_cluster = "RAY_ADDRESS" in os.environ
    if not on_cluster:
        os.environ.update(_LOCAL_ENVIRONMENT)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    stop_file = Path(job.work, "stop")
    stop_file.unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_file.touch())
    with ThreadPoolExecutor(1) as pool:  # in the main thread, fit() would take over SIGINT and abort
        kind = pool.submit(_fit, job, context, on_cluster=on_cluster).result()
    if kind == "refused":
        raise _refusal(context).error()
    return kind


def _fit(job: RankJob, context: StageContext, *, on_cluster: bool) -> str:
    import ray
    import torch
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    params: TrainParams = context.stage.params
    if on_cluster:
        ray.init()
    else:
        ray.init(
            num_cpus=max(params.world_size, len(os.sched_getaffinity(0))),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level="warning",
        )
    use_gpu = params.accelerator is not None or torch.cuda.is_available()
    trainer = TorchTrainer(
        _rank,
        train_loop_config={**dataclasses.asdict(job), "on_cluster": on_cluster},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=params.world_size, use_gpu=use_gpu),
        run_config=RunConfig(
            name=job.run_id,
            storage_path=str(Path(job.work, "ray")),
            failure_config=FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    try:
        return trainer.fit().return_value
    except TrainingFailedError as error:
        raise StageError(str(error).splitlines()[-1], "look into the log of the stage") from error
    finally:
        ray.shutdown()


def _refusal(context: StageContext) -> GiveUp:
    """Why the restarted group did not train, in rank 0's words."""
    prefix = f"train/{context.stage.key}"
    ending = read_endings(context.store, prefix, latest_attempt(context.store, prefix))[0]
    return GiveUp(ending.cause, ending.advice, ending.exit_code)


def _rank(config: dict[str, Any]) -> str:
    """The training function that Ray runs in a thread of each worker, its process group already standing."""
    import ray.train

    from train.engines.ranks import run_rank

    on_cluster = config.pop("on_cluster")
    job = RankJob(**config)
    preempted = False

    def on_step(step: int) -> None:
        nonlocal preempted
        if on_cluster:
            preempted = ray.train.get_preemption_info() is not None
        if step % HEARTBEAT_STEPS == 0:
            ray.train.report({"step": step})

    stop_file = Path(job.work, "stop")
    return run_rank(job, lambda: preempted or stop_file.exists(), on_step)
