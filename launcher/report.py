"""The run's report: one self-contained HTML page in the store, made from what the run left there."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from artifacts.store import Store
from launcher import record
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
    """The page. Everything that comes from data is escaped; beyond that the page's own policy lets no script
    run but the one whose digest it names, and nothing be fetched."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files("launcher.reporting")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        view(facts),
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
    )
