"""The run's report: one self-contained HTML page in the store, made from what the run left there."""

from __future__ import annotations

from artifacts.store import Store
from launcher import record
from launcher.reporting import page
from launcher.reporting.collect import RunFacts, collect
from launcher.reporting.view import view


def write(store: Store, run_id: str) -> str:
    """Write `runs/<run-id>/report.html` and return that key.

    Works at any time in a run's life: what is not there yet is left out. Raises ObjectMissingError where the
    store has no such run.
    """
    key = record.report_key(run_id)
    store.write_bytes(key, render(collect(store, run_id)).encode())
    return key


def render(facts: RunFacts) -> str:
    return page.render("page.html.j2", view(facts))
