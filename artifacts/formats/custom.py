"""`custom`: a Python file with `get_custom_dataset(dataset_config, tokenizer, split)`, llama-recipes' way.

It is looked at here, never run: the stage `prepare` runs it.
"""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

FUNCTION = "get_custom_dataset"
PARAMETERS = ("dataset_config", "tokenizer", "split")
MAX_BYTES = 1024 * 1024


class CustomFileError(ValueError):
    """The file is no data set: why, and the way out."""

    def __init__(self, why: str, way_out: str = "") -> None:
        self.why, self.way_out = why, way_out
        super().__init__(f"{why}; {way_out}" if way_out else why)


def check_custom_file(path: Path) -> None:
    """Raises CustomFileError unless the file is Python that defines the function, OSError."""
    if path.stat().st_size > MAX_BYTES:
        raise CustomFileError(f"larger than {MAX_BYTES} bytes", "keep the data in a file that it reads")
    try:
        with warnings.catch_warnings():  # about its style, of no concern here
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
            compile(tree, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise CustomFileError(f"not Python: {line}{what}") from None
    function = next((node for node in reversed(tree.body) if _name(node) == FUNCTION), None)
    if function is None:
        names = ", ".join(filter(None, map(_name, tree.body))) or "nothing"
        raise CustomFileError(
            f"defines no function {FUNCTION} (but {names})", f"def {FUNCTION}({', '.join(PARAMETERS)}): …"
        )
    if isinstance(function, ast.FunctionDef) and not _takes_three(function.args):
        raise CustomFileError(
            f"{FUNCTION} (line {function.lineno}) does not take {len(PARAMETERS)} arguments",
            f"def {FUNCTION}({', '.join(PARAMETERS)}): …",
        )


def _name(node: ast.stmt) -> str:
    """What a statement defines as far as it may be the function: also an import or an assignment."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.ImportFrom | ast.Import):
        return next(
            (alias.asname or alias.name for alias in node.names if FUNCTION in (alias.asname, alias.name)), ""
        )
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def _takes_three(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    needed = len(PARAMETERS)
    return required <= needed and (positional >= needed or arguments.vararg is not None)
