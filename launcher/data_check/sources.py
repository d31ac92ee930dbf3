"""What the command is given: files, and how their records are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, cast

from artifacts.contract import Reading, RecordFormat
from artifacts.dataset_info import DatasetInfoError, find_entry, read_entries
from artifacts.formats import FORMATS
from artifacts.formats.columns import ROLES
from launcher.errors import Problem, UserError
from launcher.stages.data_files import NoFilesError, local_files


def known_format(name: str) -> RecordFormat | Literal["auto"]:
    """Raises UserError."""
    if name != "auto" and name not in FORMATS:
        why = f"not one of auto, {', '.join(FORMATS)}"
        raise UserError(Problem(where="", what=f"--format {name}", why=why))
    return cast("RecordFormat", name)


def column_names(options: list[str]) -> dict[str, str]:
    """`["prompt=question"]` -> `{"prompt": "question"}`. Raises UserError."""
    names = {}
    for option in options:
        role, _, name = option.partition("=")
        if role not in ROLES or not name:
            why, way_out = "is not ROLE=NAME", f"roles are {', '.join(ROLES)}"
            raise UserError(Problem(where="", what=f"--column {option}", why=why, way_out=way_out))
        names[role] = name
    return names


def data_files(
    name: str, format: RecordFormat | Literal["auto"], reading: Reading, dataset_info: Path | None = None
) -> list[tuple[Path, RecordFormat | Literal["auto"], Reading]]:
    """The files that `name` stands for (as in a job), and how each is read. Raises UserError."""
    try:
        if dataset_info is not None:
            entry = find_entry(dataset_info, read_entries(dataset_info), name)
            columns = {**entry.reading.columns, **reading.columns}
            reading = dataclasses.replace(reading, columns=columns, tags=entry.reading.tags)
            return [(Path(file), entry.format, reading) for file in local_files(entry.path)]
        return [(Path(file), format, reading) for file in local_files(Path(name))]
    except DatasetInfoError as error:
        raise UserError(Problem(where="", what=name, why=error.why, way_out=error.way_out)) from None
    except NoFilesError as error:
        fault = error.fault
        raise UserError(Problem(where="", what=name, why=fault.why, way_out=fault.way_out)) from None
