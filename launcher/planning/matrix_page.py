"""docs/matrix.md, written from the table of `planning.matrix`. `python -m launcher.planning.matrix_page`
rewrites it; a test compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from artifacts.contract import Method
from launcher.planning import matrix
from launcher.planning.matrix import Cell, Refusal
from launcher.spec.reference import DOCS

_INTRODUCTION = """\
✓ works: `make test-matrix` trains each such cell for two steps on cores, `make test-gpu` those that need a
GPU. A number is refused, for the reason of that number at the end of the page, which also says what to do
instead. `slipway plan` says the same of a job, before anything is started.
"""


@dataclass
class _Notes:
    """Footnotes, numbered as they are first needed."""

    numbers: dict[Refusal, int] = field(default_factory=dict)

    def mark(self, cell: Cell) -> str:
        """`✓`, or the numbers of what speaks against it."""
        marks = [
            str(self.numbers.setdefault(refusal, len(self.numbers) + 1)) for refusal in matrix.refusals(cell)
        ]
        return ", ".join(marks) or "✓"

    def lines(self) -> Iterable[str]:
        for refusal, number in self.numbers.items():
            reason = f"`{refusal.field}`: {refusal.why}. *Instead:* {refusal.way_out}."
            yield f"{number}. {reason} *Source:* {refusal.source}."


def page() -> str:
    """The whole page."""
    notes = _Notes()
    parts = [
        "# What goes together",
        "<!-- Written by `python -m launcher.planning.matrix_page` from launcher/planning/matrix.py. -->",
        _INTRODUCTION.rstrip(),
        *_strategies(notes),
        *_methods(notes),
        *_options(notes),
        *_others(notes),
        "## Reasons",
        "\n".join(notes.lines()),
    ]
    return "\n\n".join(parts) + "\n"


def _strategies(notes: _Notes) -> Iterable[str]:
    for quantization in matrix.QUANTIZATIONS:
        title = "an unquantized base" if quantization == "none" else f"a base in `{quantization}`"
        yield f"## Method × strategy, {title}"
        yield _table(
            "method",
            matrix.METHODS,
            matrix.STRATEGIES,
            lambda method, strategy, quantization=quantization: notes.mark(
                Cell(method=method, strategy=strategy, quantization=quantization)
            ),
        )


def _methods(notes: _Notes) -> Iterable[str]:
    columns: dict[str, Callable[[Method], Cell]] = {
        "packing": lambda method: Cell(method=method, packing=True),
        "gradient checkpointing": lambda method: Cell(method=method, gradient_checkpointing=True),
        "merge": lambda method: Cell(method=method, merge=True),
    }
    yield "## Method × packing, gradient checkpointing, `after: merge`"
    yield _table(
        "method", matrix.METHODS, list(columns), lambda method, column: notes.mark(columns[column](method))
    )
    quantized = notes.mark(Cell(method="lora", quantization="gptq", merge=True))
    yield (
        f"Packing is refused too for {_words(matrix.LEAKING)} "
        f"({notes.mark(Cell(method='lora', architecture='bloom', packing=True))}), merging on a GPTQ base "
        f"({quantized}), and LLaMA-Adapter for all architectures but {_words(matrix.ADAPTION_PROMPT)} "
        f"({notes.mark(Cell(method='llama_adapter', architecture='bloom'))}). An architecture that is not "
        "known is probed before anything is packed."
    )


def _options(notes: _Notes) -> Iterable[str]:
    yield "## Options of a method × strategy and quantization"
    options = [(method, option) for method, names in matrix.OPTIONS.items() for option in names]

    def mark(row: tuple[str, str], column: str) -> str:
        method, option = row
        axis = "strategy" if column in matrix.STRATEGIES else "quantization"
        cell = Cell(method=method, options=frozenset({option}), **{axis: column})  # type: ignore[arg-type]
        if option == "loftq" and axis == "strategy":  # which has no meaning without
            cell = Cell(method="lora", quantization="nf4", strategy=column, options=cell.options)  # type: ignore[arg-type]
        return notes.mark(cell)

    columns = (*matrix.STRATEGIES, *matrix.QUANTIZATIONS[1:])
    yield _table("option", options, columns, mark, name=lambda row: f"{row[0]}: `{row[1]}`")


def _others(notes: _Notes) -> Iterable[str]:
    yield "## Optimizer × strategy"
    yield _table(
        "optimizer",
        matrix.OPTIMIZERS,
        matrix.STRATEGIES,
        lambda optimizer, strategy: notes.mark(Cell(method="full", optimizer=optimizer, strategy=strategy)),
    )
    yield "## Precision × device"
    yield _table(
        "precision",
        matrix.PRECISIONS,
        ("cpu", "gpu"),
        lambda precision, device: notes.mark(Cell(method="lora", precision=precision, device=device)),
    )


def _table(
    corner: str,
    rows: Sequence[object],
    columns: Sequence[str],
    mark: Callable[..., str],
    *,
    name: Callable[..., str] = lambda row: f"`{row}`",
) -> str:
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [mark(row, column) for column in columns]
        lines.append(f"| {name(row)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _words(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def write() -> None:
    (DOCS / "matrix.md").write_text(page())


if __name__ == "__main__":
    write()
