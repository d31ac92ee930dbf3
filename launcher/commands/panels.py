"""The list of commands in `slipway --help`, by what they are about, in plain text."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from typer.core import TyperGroup

JOBS = "Jobs"
RUNS = "Runs"
MODELS = "Models and adapters, of a run or of anybody"
PLACES = "Data, stores and clusters"
_ORDER = (JOBS, RUNS, MODELS, PLACES)


class Panels(TyperGroup):
    """Commands below the heading that their `rich_help_panel` names. Typer itself does it with rich, which
    takes 0.25 s to import."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [self.commands[name] for name in self.list_commands(ctx)]
        shown = [command for command in found if not command.hidden]
        width = max(len(command.name or "") for command in shown)

        def place(command: Any) -> int:
            return _ORDER.index(command.rich_help_panel)

        for number, commands in groupby(sorted(shown, key=place), key=place):
            with formatter.section(_ORDER[number]):
                rows = [
                    (f"{command.name:<{width}}", command.get_short_help_str(formatter.width - 6 - width))
                    for command in commands
                ]
                formatter.write_dl(rows)
