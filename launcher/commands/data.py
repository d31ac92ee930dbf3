"""Commands about data files."""

from __future__ import annotations

import typer

app = typer.Typer(help="Look at data files.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data files before a job uses them."""
