"""Stage `publish`, carried out: `run(plan, run_id, store, events)`."""

from launcher.publishing.stage import run

__all__ = ["run"]
