"""Self-contained HTML pages in the look of the report: layout, style and script are shared, each page has a
template of its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

_ROOM = "launcher.reporting"


def render(template: str, values: Mapping[str, Any], *, room: str = _ROOM, style: str = "") -> str:
    """The template `template` of the package `room`, which may build on those beside this module. `style`
    names a style sheet of the same package, read after the shared one.

    Everything that comes from data is escaped; beyond that the page's own policy lets no script run but the
    one whose digest it names, and nothing be fetched.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _text(room, name) or _text(_ROOM, name)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    script = _text(_ROOM, "page.js") or ""
    styles = (_text(_ROOM, "page.css") or "") + (_text(room, style) or "" if style else "")
    return environment.get_template(template).render(
        values,
        style=Markup(styles),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _text(package: str, name: str) -> str | None:
    file = resources.files(package).joinpath(name)
    return file.read_text(encoding="utf-8") if file.is_file() else None
