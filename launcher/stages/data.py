"""Stage `data`, planning half: which files, of which format and content; the first 64 MB of each is checked.

(`launcher.stages.data_run` is the other half: it checks every record and writes the artifact.)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from artifacts.contract import (
    DataFile,
    DataParams,
    Derived,
    Reading,
    RecordFormat,
    StageKind,
    StagePlan,
    canonical_json,
)
from launcher.digests import Digests
from launcher.errors import Problem
from launcher.remote_data import is_remote
from launcher.spec.data import SPLITS
from launcher.spec.files import Fault, file_fault
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages.data_files import DataFiles, Files, NoFilesError
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
    lost: Mapping[str, int] = field(default_factory=dict)  # what of the records is not passed on


#: (file, format, how it is read) -> its head. The default reads it with `artifacts.records.check_head`.
CheckHead = Callable[[Path, str, Reading], Head]


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
    files = DataFiles(data, job.path.absolute().parent)
    look = _Looking(job, digests, code(StageKind.DATA), check_head or read_head)
    for split in SPLITS:
        for index, (place, data_set) in enumerate(data.data_sets(split)):
            try:
                named = files.of(data_set)
            except NoFilesError as error:
                found.problems.append(look.problem(place, data_set.path, error.fault))
                continue
            for name in named.names:
                file = look.at(place, name, named, found)
                if file is not None:
                    file = dataclasses.replace(
                        file,
                        data_set=index,
                        weight=data_set.weight,
                        limit_records=named.limit_records,
                    )
                    found.splits.setdefault(split, []).append(file)
    found.problems += _mixtures(job, found.splits)
    return found


def _mixtures(job: Loaded[Job], splits: Mapping[str, list[DataFile]]) -> Iterator[Problem]:
    """Custom files go with nothing else."""
    custom = {split: [file for file in files if file.format == "custom"] for split, files in splits.items()}
    data = job.value.data
    for split, files in custom.items():
        what = f"data.{split}"
        if files and len(splits[split]) > 1:
            why = "a custom file is a data set of its own, with no other beside it"
            yield Problem(
                where=job.where(what), what=what, why=why, way_out="let it read the other files, too"
            )
        if split == "test" and files:
            why = "`predict` asks what a custom file's items, which may be tokens, do not tell"
            yield Problem(
                where=job.where(what), what=what, why=why, way_out="write the questions to a file of messages"
            )
        if split == "train" and files and data.eval_fraction is not None:
            why = "of a custom file's items nothing can be set aside"
            way_out = "name it in data.eval as well: it is called with split='validation'"
            yield Problem(
                where=job.where("data.eval_fraction"), what="data.eval_fraction", why=why, way_out=way_out
            )
    if len({file.sha256 for files in custom.values() for file in files}) > 1:
        why = "one custom file serves all splits, and these differ"
        yield Problem(
            where=job.where("data"), what="data", why=why, way_out="tell the splits apart by `split`"
        )


def params(job: Job, found: Found, limit_records: int | None) -> DataParams:
    """The stage's parameters. Mixed, unless the job says otherwise, is what comes from several data sets."""
    shuffle = job.data.shuffle
    if shuffle is None:
        shuffle = len(job.data.data_sets("train")) > 1
    return DataParams(
        splits=found.splits,
        on_error=job.data.on_error,
        limit_records=limit_records,
        eval_fraction=job.data.eval_fraction,
        shuffle=shuffle,
    )


@dataclass(frozen=True)
class _Looking:
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
        told = _said(shown(path, below=self.job.path.absolute().parent), head, files.note)
        self._tell(place, head.format, told, found)
        format = cast(RecordFormat, head.format)
        return DataFile(path=name, size_bytes=size_bytes, sha256=sha256, format=format, reading=files.reading)

    def _remote(self, place: str, address: str, files: Files, found: Found) -> DataFile | None:
        """What is in a file that lies elsewhere shows once it is fetched."""
        sha256 = self.job.value.data.pins.get(address)
        if sha256 is None:
            why = "it is not pinned: without its digest in data.pins the same job could mean other records "
            found.problems.append(self.problem(place, address, Fault(why + "tomorrow", "slipway pin JOB")))
            return None
        self._tell(place, files.format, f"{address}, fetched by the data stage", found)
        return DataFile(path=address, size_bytes=0, sha256=sha256, format=files.format, reading=files.reading)

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


def _said(name: str, head: Head, note: str = "") -> str:
    """`train.jsonl: JSON lines, format alpaca (detected), 400 records`."""
    if head.format == "custom":
        return f"{name}: {head.said}, run by the stage prepare"
    where = "" if head.whole else " in the first 64 MB"
    skipped = f", {head.bad_records:,} bad ones to be skipped" if head.bad_records else ""
    ignored = f"; not read: {', '.join(head.lost)}" if head.lost else ""
    said = ", ".join(filter(None, (head.said, note)))
    return f"{name}: {said}, {head.records:,} records{where}{skipped}{ignored}"


def read_head(path: Path, format: str, reading: Reading) -> Head:
    """Read the file's first 64 MB as the data stage would."""
    from artifacts.records import check_head

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


def plan(params: DataParams, code: CodeDigest) -> StagePlan:
    return stage(StageKind.DATA, content(params, code), {}, params)


def content(params: DataParams, code: CodeDigest, splits: Iterable[str] | None = None) -> str:
    """Digest of the records of some `splits` (all of them: the stage's key). A stage that reads only these
    is keyed by it, so that another test file re-trains nothing."""
    chosen = params.splits if splits is None else {name: params.splits.get(name, []) for name in splits}
    return stage_key(StageKind.DATA, code(StageKind.DATA), {}, _key_params(params, chosen))


def _key_params(params: DataParams, splits: Mapping[str, list[DataFile]]) -> dict[str, Any]:
    """Contents and how they are read, not paths: a renamed or touched file is the same data."""
    chosen = {name: [_file_key(file) for file in files] for name, files in splits.items() if files}
    key: dict[str, Any] = {
        "splits": chosen,
        "on_error": params.on_error,
        "limit_records": params.limit_records,
    }
    if "train" in chosen:
        key |= {"eval_fraction": params.eval_fraction, "shuffle": params.shuffle, "seed": params.seed}
    return key


def _file_key(file: DataFile) -> dict[str, Any]:
    told = dataclasses.asdict(file)
    return {name: value for name, value in told.items() if name not in ("path", "size_bytes")}


def shown(path: Path, below: Path | None = None) -> str:
    """The path as people best read it: relative to the working directory (or `below`) where it lies there."""
    try:
        return str(path.relative_to(below or Path.cwd()))
    except ValueError:
        return str(path)
