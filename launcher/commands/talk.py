"""Commands that talk to a model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import ClusterName, complete_run, open_place

if TYPE_CHECKING:
    from artifacts.contract import Source

What = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER|FILE.gguf",
        help="A run, a model's or an adapter's folder, or a GGUF file.",
        autocompletion=complete_run,
        show_default=False,
    ),
]
ProductName = Annotated[
    str | None,
    typer.Option(
        "--product",
        metavar="PRODUCT",
        help="Of a run: merged, adapter, quantized, gguf (or gguf:q8_0) or base. Left out: the merged model, "
        "else the adapter on its base, else what there is.",
        show_default=False,
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        metavar="FOLDER|org/name",
        help="Of an adapter's folder: the base model, where the adapter names none that is here.",
        show_default=False,
    ),
]


def chat(
    what: What,
    base: Annotated[
        bool, typer.Option("--base", help="Talk to the untuned model, with the tuned one's template.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Ask both, and see their answers side by side.")
    ] = False,
    product: ProductName = None,
    base_model: BaseModel = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="The system message.", show_default=False)
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="X", min=0.0, help="0: always the likeliest token.")
    ] = 0.0,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            min=1,
            help="Longest answer. Left out: what the model's context holds.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Same seed, same answers.", show_default=False),
    ] = None,
    cluster: ClusterName = "local",
) -> None:
    """Talk to a model on this machine.

    Answers come as they are made; /help lists what can be typed beside questions. Through a pipe each line is
    a question, and standard output holds the answers alone.

    Examples: slipway chat support-bot --compare, slipway chat model-q4_k_m.gguf --temperature 0.7,
    echo 'Who are you?' | slipway chat ./merged
    """
    from launcher import talking

    sources = _sources(what, cluster, product, base_model, base=base, compare=compare)
    options = [f"--temperature={temperature}"]
    for name, value in (("system", system), ("max-new-tokens", max_new_tokens), ("seed", seed)):
        options += [f"--{name}={value}"] if value is not None else []
    raise typer.Exit(talking.run("train.chat", sources, options))


def _sources(
    what: str, cluster: str, product: str | None, base_model: str | None, *, base: bool, compare: bool
) -> list[Source]:
    """What to load: one model, or the base before the tuned one. Raises UserError."""
    import dataclasses

    from launcher import models
    from launcher.errors import Problem, UserError

    if base and (compare or product not in (None, "base")):
        other = "--compare" if compare else f"--product {product}"
        raise UserError(Problem(where="", what=f"--base {other}", why="one says what the other does not"))
    fetching = FetchLine()

    def find(product: str | None) -> Source:
        return models.find(
            what,
            lambda: open_place(cluster).store,
            product=product,
            base_model=base_model,
            fetching=fetching.show,
        )

    try:
        if not compare:
            return [find("base" if base else product)]
        return [dataclasses.replace(find("base"), name="base"), find(product)]
    finally:
        fetching.end()


class FetchLine:
    """How far a fetch is, in one line of the terminal, or none where there is no terminal."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, what: str, done: int, total: int) -> None:
        from launcher.progress.live import amount

        if sys.stderr.isatty():
            line = f"fetching {what}: {amount(done, 'bytes')} of {amount(total, 'bytes')}"
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = True

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
