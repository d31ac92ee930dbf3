"""A split's files, one after the other: fetched, checked against the plan, read to their end or their data
set's limit."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from artifacts.contract import DataFile, DataParams
from artifacts.events import Events
from artifacts.manifest import hash_file
from artifacts.records import BadRecord, DataFileError, Digest, FileReport, GoodRecord, RecordFile
from launcher import remote_data
from launcher.errors import Problem, UserError
from launcher.stages.data_run.division import copies

LISTED_BAD_RECORDS = 100  # per split, in the report
_SHOWN_BAD_RECORDS = 10  # in the error of `on_error: stop`
_PROGRESS_EVERY_S = 0.25
_SKIP_HINT = "mend them, or set data.on_error: skip to leave them out; `slipway data check FILE` lists more"

#: Takes a good record and how often it passes.
Take = Callable[[GoodRecord, int], None]


class SplitInput:
    """The files of one split, and what was counted on the way."""

    def __init__(self, name: str, params: DataParams, progress: Progress) -> None:
        self.name = name
        self.files: list[FileReport] = []
        self.records = self.bad_records = 0
        self.bad: list[BadRecord] = []
        self._params, self._progress = params, progress
        self._taken: Counter[int] = Counter()  # good records by data set
        sets = len({file.data_set for file in params.splits.get(name, [])})
        self._share = None if params.limit_records is None else -(-params.limit_records // max(1, sets))

    @property
    def fails(self) -> bool:
        """Whether the stage fails in the end and only goes on looking."""
        return bool(self.bad) and self._params.on_error == "stop"

    def read(self, file: DataFile, take: Take) -> None:
        """Read one file. Raises UserError, and what `launcher.remote_data.fetch` raises."""
        with self.here(file) as local:
            try:
                self._read(file, local, take)
            except DataFileError as error:
                problem = Problem(where="", what=file.path, why=error.why, way_out=error.way_out)
                raise UserError(problem) from None

    def require_usable(self) -> None:
        """Raises UserError for bad records under `on_error: stop`, and where no good one is left."""
        if self.fails:
            raise self._bad_records_error(f"{self.bad_records:,} of {self.records + self.bad_records:,}")
        if self.records == 0:
            found = f"; the first: {self.bad[0]}" if self.bad else ": the files are empty"
            problem = Problem(where="", what=f"data.{self.name}", why="no usable record" + found)
            raise UserError(problem)

    @contextlib.contextmanager
    def here(self, file: DataFile) -> Iterator[DataFile]:
        """The file on this machine: fetched, checked against its pin, and removed afterwards."""
        if not file.is_remote:
            yield file
            return
        self._progress.fetching(file)
        with tempfile.TemporaryDirectory(prefix="slipway-data-") as folder:
            path = remote_data.fetch(file.path, Path(folder))
            size_bytes, sha256 = hash_file(path)
            if sha256 != file.sha256:
                why = "its content is not the pinned one"
                way_out = "`slipway pin JOB`, if the new content is what you mean"
                raise UserError(Problem(where="", what=file.path, why=why, way_out=way_out))
            self._progress.fetched(size_bytes)
            yield dataclasses.replace(file, path=str(path), size_bytes=size_bytes)

    def _read(self, file: DataFile, local: DataFile, take: Take) -> None:
        """`file` as the job names it, `local` as it lies here."""
        limit = self._limit(file)
        if limit is not None and self._taken[file.data_set] >= limit:
            return
        digest = hashlib.sha256()
        before, bad_before = self.records, self.bad_records
        records = open_unchanged(
            local, digest, file.path, limited=limit is not None, trusted=self._share is not None
        )
        at_end, lines = self._take_all(records, file, limit, take)
        if at_end and records.is_hashed and digest.hexdigest() != file.sha256:
            raise changed(file.path)
        self.files.append(
            FileReport(
                path=file.path,
                said=records.said,
                records=self.records - before,
                bad_records=self.bad_records - bad_before,
                lines=lines,
                weight=file.weight,
                lost=dict(records.lost),
            )
        )
        self._progress.file_done(local)

    def _limit(self, file: DataFile) -> int | None:
        """How many records of the file's data set pass; None: all."""
        limits = [limit for limit in (file.limit_records, self._share) if limit is not None]
        return min(limits, default=None)

    def _take_all(
        self, records: RecordFile, file: DataFile, limit: int | None, take: Take
    ) -> tuple[bool, int]:
        """Whether the file's end was reached (not where a limit was first), and the lines that pass."""
        taken, lines = self._taken[file.data_set], 0
        weighted, stops = file.weight != 1, self._params.on_error == "stop"
        for item in records:
            if type(item) is BadRecord:
                self._refuse(dataclasses.replace(item, file=file.path))
                continue
            times = copies(taken, file.weight) if weighted else 1
            if not (stops and self.bad):  # a stage that fails anyway only goes on looking
                take(cast(GoodRecord, item), times)
            taken += 1
            lines += times
            self.records += 1
            if self.records % 1024 == 0:
                self._progress.tick(records, self.records)
            if taken == limit:
                break
        self._taken[file.data_set] = taken
        return taken != limit, lines

    def _refuse(self, bad: BadRecord) -> None:
        self.bad_records += 1
        if len(self.bad) < LISTED_BAD_RECORDS:
            self.bad.append(bad)
        if self.fails and self.bad_records >= _SHOWN_BAD_RECORDS:
            raise self._bad_records_error(f"at least {self.bad_records} of the first {bad.number:,}")

    def _bad_records_error(self, share: str) -> UserError:
        problems = [
            Problem(where="", what=f"{bad.file}: {bad.place}", why=bad.reason)
            for bad in self.bad[:_SHOWN_BAD_RECORDS]
        ]
        problems[-1] = dataclasses.replace(
            problems[-1], way_out=f"{share} records of data.{self.name} can't be used: {_SKIP_HINT}"
        )
        return UserError(problems)


def open_unchanged(file: DataFile, digest: Digest, name: str, *, limited: bool, trusted: bool) -> RecordFile:
    """The file as the plan saw it. One that is not read from front to back to its end is hashed beforehand,
    unless it is `trusted` (a rehearsal's). Raises UserError, naming the file by `name`, and DataFileError."""
    path = Path(file.path)
    records = RecordFile(path, file.format, file.reading, digest=digest)
    if records.size_bytes != file.size_bytes:
        raise changed(name)
    hashed_later = records.is_hashed and not limited
    if not hashed_later and not trusted and hash_file(path)[1] != file.sha256:
        raise changed(name)
    return records


def changed(name: str) -> UserError:
    why = "the file has changed since the plan was made"
    way_out = "submit again: a new plan will name the file as it is now"
    return UserError(Problem(where="", what=name, why=why, way_out=way_out))


class Progress:
    """Tells the events how many bytes of all files were read; the number of records is not known before."""

    def __init__(self, params: DataParams, events: Events) -> None:
        self._events = events
        self._total_bytes = sum(file.size_bytes for files in params.splits.values() for file in files)
        self._finished_bytes, self._said_at = 0, 0.0

    def tick(self, records: RecordFile, count: int) -> None:
        now = time.monotonic()
        if now - self._said_at >= _PROGRESS_EVERY_S:
            self._said_at = now
            done = self._finished_bytes + records.bytes_read
            self._events.progress(done, self._total_bytes, "bytes", records=count)

    def fetching(self, file: DataFile) -> None:
        self._events.say("note", text=f"fetching {file.path}")

    def fetched(self, size_bytes: int) -> None:
        self._total_bytes += size_bytes

    def file_done(self, file: DataFile) -> None:
        self._finished_bytes += file.size_bytes
        self._events.progress(self._finished_bytes, self._total_bytes, "bytes")
