"""Which stages a cluster carries out, and with which program."""

from __future__ import annotations

from artifacts.contract import StageKind, StagePlan


def runs_in_cluster(stage: StagePlan) -> bool:
    """All but the image, and data of which a file lies on the submitting machine."""
    if stage.kind == StageKind.DATA:
        files = [file for files in stage.params.splits.values() for file in files]
        return bool(files) and all(file.is_remote for file in files)
    return stage.kind != StageKind.IMAGE


def pod_module(stage: StagePlan) -> str:
    """The module that carries the stage out; `train.pod` runs it. The launcher's image is enough for those of
    the launcher."""
    modules = {StageKind.DATA: "launcher.stages.data_run", StageKind.PUBLISH: "launcher.publishing"}
    return modules.get(stage.kind, "train")
