"""A data file as the plan sees it: is it one, of which format, what its first 64 MB hold, its SHA-256."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from artifacts.contract import DataFile, Derived, Reading, RecordFormat, canonical_json
from launcher.digests import Digests
from launcher.errors import Problem
from launcher.remote_data import is_remote
from launcher.spec.files import Fault, file_fault
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages.data_files import Files

#: Bad records of one file that are listed; the rest are counted.
_LISTED = 5


@dataclass(frozen=True)
class Head:
    """What the first bytes of a file say. `why` tells what makes the whole file unusable."""

    format: str | None
    said: str
    records: int
    bad: tuple[str, ...] = ()
    bad_records: int = 0
    whole: bool = False
    why: str = ""
    way_out: str = ""
    lost: Mapping[str, int] = field(default_factory=dict)  # what of the records is not passed on


#: (file, format, how it is read) -> its head. The default reads it with `artifacts.head_check`.
CheckHead = Callable[[Path, str, Reading], Head]


@dataclass
class Found:
    """The job's files by split, and what there is to say of them."""

    splits: dict[str, list[DataFile]] = field(default_factory=dict)
    derived: list[Derived] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Looking:
    """Looks at files; a head that was read before, by the same code, is remembered."""

    job: Loaded[Job]
    digests: Digests
    code: str
    check_head: CheckHead

    def at(self, place: str, name: str, files: Files, found: Found) -> DataFile | None:
        """The facts of a file of the data set named at `place`, or None; what there is to say goes to
        `found`."""
        return (self._remote if is_remote(name) else self._local)(place, name, files, found)

    def problem(self, place: str, name: str, fault: Fault) -> Problem:
        field = f"data.{_indexed(place)}"
        what = f"{field}: {name if is_remote(name) else shown(Path(name))}"
        way_out = fault.way_out.replace("slipway pin JOB", f"slipway pin {self.job.path}")
        return Problem(where=self.job.where(field), what=what, why=fault.why, way_out=way_out)

    def _local(self, place: str, name: str, files: Files, found: Found) -> DataFile | None:
        data, path = self.job.value.data, Path(name)
        fault = file_fault(path, inside=self.job.path.absolute().parent)
        faults = [fault] if fault else []
        if not faults:
            try:
                head = self._head(path, files)
                if not (faults := _head_faults(head, data.on_error)):
                    size_bytes, sha256 = self.digests.sha256(path)
            except OSError as error:
                faults = [Fault(f"can't be read: {error.strerror or error}")]
        if faults:
            found.problems += [self.problem(place, name, fault) for fault in faults]
            return None
        # Part of the plan, so of the run's id: the same from whatever folder the command is given.
        told = _said(shown(path, below=self.job.path.absolute().parent), head, files)
        self._tell(place, head.format, told, found)
        return files.file(name, size_bytes, sha256, cast(RecordFormat, head.format))

    def _remote(self, place: str, address: str, files: Files, found: Found) -> DataFile | None:
        """What is in a file that lies elsewhere shows once it is fetched."""
        sha256 = self.job.value.data.pins.get(address)
        if sha256 is None:
            why = "it is not pinned: without its digest in data.pins the same job could mean other records "
            found.problems.append(self.problem(place, address, Fault(why + "tomorrow", "slipway pin JOB")))
            return None
        self._tell(place, files.format, f"{address}, fetched by the data stage", found)
        return files.file(address, 0, sha256, files.format)

    def _tell(self, place: str, format: str | None, reason: str, found: Found) -> None:
        field = f"data.{_indexed(place.removesuffix('.path'))}.format"
        found.derived.append(Derived(field=field, value=format, reason=reason))

    def _head(self, path: Path, files: Files) -> Head:
        how = canonical_json(dataclasses.asdict(files.reading)).decode()
        _, facts = self.digests.derived(
            path,
            f"head as {files.format} {how} by {self.code}",
            lambda path: dataclasses.asdict(self.check_head(path, files.format, files.reading)),
        )
        return Head(**facts)


def _indexed(place: str) -> str:
    """`train.1.path` -> `train[1].path`."""
    return re.sub(r"\.(\d+)", r"[\1]", place)


def _head_faults(head: Head, on_error: str) -> list[Fault]:
    if head.why or head.format is None:
        return [Fault(head.why or "no known format", head.way_out)]
    if not head.bad_records or on_error == "skip":
        return []
    counts = f"{head.bad_records:,} bad records beside {head.records:,} good ones"
    return [*(Fault(text) for text in head.bad), Fault(counts, "mend them, or write data.on_error: skip")]


def _said(name: str, head: Head, files: Files) -> str:
    """`train.jsonl: JSON lines, format alpaca (detected), 400 records, weight 2`."""
    if head.format == "custom":
        return f"{name}: {head.said}, run by the stage prepare"
    where = "" if head.whole else " in the first 64 MB"
    skipped = f", {head.bad_records:,} bad ones to be skipped" if head.bad_records else ""
    ignored = f"; not read: {', '.join(head.lost)}" if head.lost else ""
    said = ", ".join(filter(None, (head.said, files.note)))
    limit = f", the first {files.limit_records:,} taken" if files.limit_records else ""
    weight = f", weight {files.weight:g}" if files.weight != 1 else ""
    return f"{name}: {said}, {head.records:,} records{where}{limit}{weight}{skipped}{ignored}"


def read_head(path: Path, format: str, reading: Reading) -> Head:
    """Read the file's first 64 MB as the data stage would."""
    from artifacts.head_check import check_head

    check = check_head(path, format, reading, listed=_LISTED)  # type: ignore[arg-type]
    bad = (str(record).removeprefix(f"{record.file}: ") for record in check.bad)
    return Head(
        format=check.format,
        said=check.said,
        records=check.records,
        bad=tuple(bad),
        bad_records=check.bad_records,
        whole=check.whole,
        why=check.why,
        way_out=check.way_out,
        lost=check.lost,
    )


def shown(path: Path, below: Path | None = None) -> str:
    """The path as people best read it: relative to the working directory (or `below`) where it lies there."""
    try:
        return str(path.relative_to(below or Path.cwd()))
    except ValueError:
        return str(path)
