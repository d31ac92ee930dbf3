"""Stage `data`, carried out: `run(stage, store, events)`."""

from launcher.stages.data_run.staging import run

__all__ = ["run"]
