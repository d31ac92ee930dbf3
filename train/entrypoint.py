"""Stage `train`: starts the ranks with the plan's engine and turns their ending into the stage's.

Rank 0 commits `train/<key>/final`; nothing is committed here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from artifacts.manifest import is_complete, read_marker, verify
from train.engines.base import RankJob
from train.stage import Drained, StageContext, StageError

ENGINES = {"torchrun": "train.engines.torchrun", "ray": "train.engines.ray"}


def run(context: StageContext) -> None:
    """Train to the end. Raises Drained when asked to stop, StageError when it is no use to go on."""
    verify_inputs(context)
    job = RankJob(
        plan_json=context.plan.to_json(),
        run_id=context.run_id,
        work=str(context.work.absolute()),
    )
    start: Callable[[RankJob, StageContext], str] = import_module(ENGINES[context.plan.engine]).run
    if start(job, context) == "drained":
        raise Drained("stopped on request after saving a checkpoint", "resume continues from there")
    if not is_complete(context.store, context.stage.output):
        raise StageError(
            f"all ranks ended well, but {context.stage.output} has no marker", "report this as a bug"
        )


def verify_inputs(context: StageContext) -> None:
    """Every byte of what the training reads, but for a base model used in place: its files were checked when
    its marker was made. What lies in a remote store is checked on each node as it comes there (the node
    cache), so here only its marker is. Raises StageError."""
    for name, prefix in sorted(context.stage.inputs.items()):
        marker = read_marker(context.store, prefix)
        if marker is None:
            raise StageError(f"input {name} ({prefix}) is not there", f"run the stage {name} again")
        reads = marker.location is None and context.store.local_path(prefix) is not None
        problems = verify(context.store, prefix) if reads else []
        if problems:
            raise StageError(
                f"input {name} ({prefix}) is damaged: {problems[0]}", f"remove {prefix} from the store"
            )
