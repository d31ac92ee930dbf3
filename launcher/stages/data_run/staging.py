"""Stage `data`: every record of every split read, checked and written as canonical shards.

Runs in the launcher's process: pure Python, memory bounded by the longest record, whatever the file's size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from artifacts.contract import DataFile, DataParams, StagePlan, canonical_json
from artifacts.conversations import Message
from artifacts.events import Events
from artifacts.filetypes import FileType
from artifacts.manifest import ArtifactWriter, hash_file
from artifacts.records import (
    BadRecord,
    DataFileError,
    DataReport,
    Digest,
    FileReport,
    RecordFile,
    SplitReport,
)
from artifacts.store import Store
from launcher import remote_data
from launcher.errors import Problem, UserError
from launcher.stages.data_run.fingerprints import FingerprintBag, fingerprints
from launcher.stages.data_run.shards import ShardWriter

LISTED_BAD_RECORDS = 100  # per split, in the report
_SHOWN_BAD_RECORDS = 10  # in the error of `on_error: stop`
_PROGRESS_EVERY_S = 0.25
_SKIP_HINT = "mend them, or set data.on_error: skip to leave them out; `slipway data check FILE` lists more"


def run(stage: StagePlan, store: Store, events: Events) -> DataReport:
    """Make the artifact `stage.output`: `<split>-NNNNN.jsonl` and `report.json`, then the marker.

    Raises UserError for bad records (unless `on_error: skip`), for a file that changed since the plan, and
    for a split of which nothing is left; then nothing stays in the store.
    """
    params: DataParams = stage.params
    writer = ArtifactWriter(store, stage.output)
    try:
        report = _stage_splits(params, writer, _Progress(params, events))
    except BaseException:
        for info in list(store.list(stage.output)):
            store.delete(info.key)
        raise
    writer.write_bytes("report.json", canonical_json(report))
    writer.commit(records={name: split.records for name, split in report.splits.items()})
    return report


def _stage_splits(params: DataParams, writer: ArtifactWriter, progress: _Progress) -> DataReport:
    splits = {}
    prompts: dict[str, FingerprintBag] = {}
    duplicates = 0
    for name, files in params.splits.items():
        split = _Split(name, params, progress)
        with ShardWriter(writer, name) as shards:
            for file in files:
                split.stage(file, shards)
        split.require_usable()
        splits[name] = split.report(shards.names)
        prompts[name] = split.prompts
        if name == "train":
            duplicates = split.conversations.duplicates()
    overlap = {name: bag.count_in(prompts["train"]) for name, bag in prompts.items() if name != "train"}
    return DataReport(
        splits=splits, duplicates=duplicates, overlap=overlap, limited_to_records=params.limit_records
    )


class _Split:
    """The files of one split, one after the other, and what was counted on the way."""

    def __init__(self, name: str, params: DataParams, progress: _Progress) -> None:
        self.name = name
        self.conversations, self.prompts = FingerprintBag(), FingerprintBag()
        self._params, self._progress = params, progress
        self._files: list[FileReport] = []
        self._records = self._bad_records = self._longest = 0
        self._bad: list[BadRecord] = []
        self._characters: Counter[str] = Counter()

    def stage(self, file: DataFile, shards: ShardWriter) -> None:
        """Read one file to its end (or the split's limit), into the shards."""
        with self._here(file) as local:
            self._stage(file, local, shards)

    @contextlib.contextmanager
    def _here(self, file: DataFile) -> Iterator[DataFile]:
        """The file on this machine: fetched, checked against its pin, and removed afterwards. Raises
        UserError, and what `launcher.remote_data.fetch` raises."""
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

    def _stage(self, file: DataFile, local: DataFile, shards: ShardWriter) -> None:
        """`file` as the job names it, `local` as it lies here."""
        digest = hashlib.sha256()
        records_before, bad_before = self._records, self._bad_records
        try:
            records = self._open(local, digest)
            at_end = self._copy(records, shards, file.path)
        except DataFileError as error:
            raise UserError(Problem(where="", what=file.path, why=error.why, way_out=error.way_out)) from None
        if at_end and records.file_type is not FileType.PARQUET and digest.hexdigest() != file.sha256:
            raise _changed(file)
        self._files.append(
            FileReport(
                path=file.path,
                said=records.said,
                records=self._records - records_before,
                bad_records=self._bad_records - bad_before,
                ignored_columns=sorted(records.ignored_columns),
            )
        )
        self._progress.file_done(local)

    def require_usable(self) -> None:
        """Raises UserError for bad records under `on_error: stop`, and where no good one is left."""
        if self._bad and self._params.on_error == "stop":
            raise self._bad_records_error(f"{self._bad_records:,} of {self._records + self._bad_records:,}")
        if self._records == 0:
            problem = Problem(
                where="",
                what=f"data.{self.name}",
                why="no usable record"
                + (f"; the first: {self._bad[0]}" if self._bad else ": the files are empty"),
            )
            raise UserError(problem)

    def report(self, shards: list[str]) -> SplitReport:
        return SplitReport(
            files=self._files,
            records=self._records,
            bad_records=self._bad_records,
            bad=self._bad,
            characters=dict(self._characters),
            longest_record_characters=self._longest,
            shards=shards,
        )

    def _open(self, file: DataFile, digest: Digest) -> RecordFile:
        path = Path(file.path)
        records = RecordFile(path, file.format, digest=digest)
        if records.size_bytes != file.size_bytes:
            raise _changed(file)
        # Parquet is read from its end: its digest is taken beforehand, unless a few records will do.
        hashed = records.file_type is FileType.PARQUET and self._params.limit_records is None
        if hashed and hash_file(path)[1] != file.sha256:
            raise _changed(file)
        return records

    def _copy(self, records: RecordFile, shards: ShardWriter, name: str) -> bool:
        """Whether the file's end was reached; not where the split's limit was first."""
        stop, limit = self._params.on_error == "stop", self._params.limit_records
        for item in records:
            if limit is not None and self._records >= limit:
                return False
            if isinstance(item, BadRecord):
                self._refuse(dataclasses.replace(item, file=name), stop)
                continue
            if not (stop and self._bad):  # a stage that fails anyway only goes on looking
                shards.write(item.line)
            self._count(item.messages)
            if self._records % 1024 == 0:
                self._progress.tick(records, self._records)
        return True

    def _refuse(self, bad: BadRecord, stop: bool) -> None:
        self._bad_records += 1
        if len(self._bad) < LISTED_BAD_RECORDS:
            self._bad.append(bad)
        if stop and self._bad_records >= _SHOWN_BAD_RECORDS:
            raise self._bad_records_error(f"at least {self._bad_records} of the first {bad.number:,}")

    def _count(self, messages: list[Message]) -> None:
        self._records += 1
        characters = self._characters
        total = 0
        for message in messages:
            length = len(message["content"])
            characters[message["role"]] += length
            total += length
        if total > self._longest:
            self._longest = total
        conversation, prompt = fingerprints(messages)
        self.prompts.add(prompt)
        if self.name == "train":
            self.conversations.add(conversation)

    def _bad_records_error(self, share: str) -> UserError:
        problems = [
            Problem(where="", what=f"{bad.file}: {bad.place}", why=bad.reason)
            for bad in self._bad[:_SHOWN_BAD_RECORDS]
        ]
        problems[-1] = dataclasses.replace(
            problems[-1], way_out=f"{share} records of data.{self.name} can't be used: {_SKIP_HINT}"
        )
        return UserError(problems)


class _Progress:
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


def _changed(file: DataFile) -> UserError:
    return UserError(
        Problem(
            where="",
            what=file.path,
            why="the file has changed since the plan was made",
            way_out="submit again: a new plan will name the file as it is now",
        )
    )
