"""Stage `data`, planning half: which files, of which format and content; the first 64 MB of each is checked.

(`launcher.stages.data_run` is the other half: it checks every record and writes the artifact.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from artifacts.contract import DataFile, DataParams, Derived, RecordFormat, StageKind, StagePlan
from launcher.digests import Digests
from launcher.errors import Problem
from launcher.remote_data import is_remote
from launcher.spec.data import SPLITS
from launcher.spec.files import Fault, file_fault
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages.keys import CodeDigest, stage, stage_key

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


#: (file, format of the job) -> its head. The default reads it with `artifacts.records.check_head`.
CheckHead = Callable[[Path, str], Head]


@dataclass
class Found:
    """The job's files by split, and what there is to say of them."""

    splits: dict[str, list[DataFile]] = field(default_factory=dict)
    derived: list[Derived] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find(job: Loaded[Job], digests: Digests, code: CodeDigest, check_head: CheckHead | None = None) -> Found:
    """Look at every data file of the job: is it one, what is in its head, and its SHA-256."""
    found = Found()
    data = job.value.data
    look = _Looking(job, digests, f"head as {data.format} by {code(StageKind.DATA)}", check_head or read_head)
    for split in SPLITS:
        files = data.files(split)
        for index, name in enumerate(files):
            place = f"data.{split}" if isinstance(getattr(data, split), str) else f"data.{split}[{index}]"
            file = look.remote(place, name, found) if is_remote(name) else look.at(place, Path(name), found)
            if file is not None:
                found.splits.setdefault(split, []).append(file)
    return found


@dataclass(frozen=True)
class _Looking:
    """Looks at files; a head that was read before, by the same code, is remembered."""

    job: Loaded[Job]
    digests: Digests
    remembered_as: str
    check_head: CheckHead

    def at(self, place: str, path: Path, found: Found) -> DataFile | None:
        """The facts of the file named at `place`, or None; what there is to say goes to `found`."""
        data = self.job.value.data
        fault = file_fault(path, inside=self.job.path.absolute().parent)
        faults = [fault] if fault else []
        if not faults:
            try:
                _, facts = self.digests.derived(path, self.remembered_as, self._head)
                head = Head(**facts)
                if not (faults := _head_faults(head, data.on_error)):
                    size_bytes, sha256 = self.digests.sha256(path)
            except OSError as error:
                faults = [Fault(f"can't be read: {error.strerror or error}")]
        if faults:
            where, what = self.job.where(place), f"{place}: {shown(path)}"
            found.problems += [
                Problem(where=where, what=what, why=fault.why, way_out=fault.way_out) for fault in faults
            ]
            return None
        # Part of the plan, so of the run's id: the same from whatever folder the command is given.
        name = shown(path, below=self.job.path.absolute().parent)
        found.derived.append(Derived(field=f"{place}.format", value=head.format, reason=_said(name, head)))
        format = cast(RecordFormat, head.format)
        return DataFile(path=str(path), size_bytes=size_bytes, sha256=sha256, format=format)

    def remote(self, place: str, address: str, found: Found) -> DataFile | None:
        """The same of a file that lies elsewhere: what is in it shows once it is fetched."""
        data = self.job.value.data
        sha256 = data.pins.get(address)
        if sha256 is None:
            problem = Problem(
                where=self.job.where(place),
                what=f"{place}: {address}",
                why="it is not pinned: without its digest in data.pins the same job could mean other records "
                "tomorrow",
                way_out=f"slipway pin {self.job.path}",
            )
            found.problems.append(problem)
            return None
        reason = f"{address}, fetched by the data stage"
        found.derived.append(Derived(field=f"{place}.format", value=data.format, reason=reason))
        return DataFile(path=address, size_bytes=0, sha256=sha256, format=data.format)

    def _head(self, path: Path) -> dict[str, Any]:
        return dataclasses.asdict(self.check_head(path, self.job.value.data.format))


def _head_faults(head: Head, on_error: str) -> list[Fault]:
    if head.why or head.format is None:
        return [Fault(head.why or "no known format", head.way_out)]
    if not head.bad_records or on_error == "skip":
        return []
    counts = f"{head.bad_records:,} bad records beside {head.records:,} good ones"
    return [*(Fault(text) for text in head.bad), Fault(counts, "mend them, or write data.on_error: skip")]


def _said(name: str, head: Head) -> str:
    """`train.jsonl: JSON lines, format alpaca (detected), 400 records`."""
    where = "" if head.whole else " in the first 64 MB"
    skipped = f", {head.bad_records:,} bad ones to be skipped" if head.bad_records else ""
    return f"{name}: {head.said}, {head.records:,} records{where}{skipped}"


def read_head(path: Path, format: str) -> Head:
    """Read the file's first 64 MB as the data stage would."""
    from artifacts.records import check_head

    check = check_head(path, format, listed=_LISTED)  # type: ignore[arg-type]
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
    )


def plan(params: DataParams, code: CodeDigest) -> StagePlan:
    return stage(StageKind.DATA, content(params, code), {}, params)


def content(params: DataParams, code: CodeDigest, splits: Iterable[str] | None = None) -> str:
    """Digest of the records of some `splits` (all of them: the stage's key). A stage that reads only these
    is keyed by it, so that another test file re-trains nothing."""
    chosen = params.splits if splits is None else {name: params.splits.get(name, []) for name in splits}
    return stage_key(StageKind.DATA, code(StageKind.DATA), {}, _key_params(params, chosen))


def _key_params(params: DataParams, splits: Mapping[str, list[DataFile]]) -> dict[str, Any]:
    """Contents and formats, not paths: a renamed or touched file is the same data."""
    return {
        "splits": {
            name: [{"sha256": file.sha256, "format": file.format} for file in files]
            for name, files in splits.items()
            if files
        },
        "on_error": params.on_error,
        "limit_records": params.limit_records,
    }


def shown(path: Path, below: Path | None = None) -> str:
    """The path as people best read it: relative to the working directory (or `below`) where it lies there."""
    try:
        return str(path.relative_to(below or Path.cwd()))
    except ValueError:
        return str(path)
