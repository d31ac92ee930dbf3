"""Stage `data`: every record of every split read, checked and written as canonical shards.

Runs in the launcher's process: pure Python, memory bounded by the longest record, whatever the file's size.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from artifacts.contract import DataFile, DataParams, StagePlan, canonical_json
from artifacts.events import Events
from artifacts.manifest import ArtifactWriter
from artifacts.records import DataReport, FileReport, GoodRecord, SplitReport
from artifacts.store import Store
from launcher.errors import Problem, UserError
from launcher.stages.data_run.division import Division
from launcher.stages.data_run.inputs import Progress, SplitInput, changed
from launcher.stages.data_run.shards import ShardWriter
from launcher.stages.data_run.shuffling import Shuffler
from launcher.stages.data_run.sink import Sink

CUSTOM_FILE = "custom.py"


def run(stage: StagePlan, store: Store, events: Events) -> DataReport:
    """Make the artifact `stage.output`: `<split>-NNNNN.jsonl` and `report.json`, then the marker.

    Raises UserError for bad records (unless `on_error: skip`), for a file that changed since the plan, and
    for a split of which nothing is left; then nothing stays in the store.
    """
    params: DataParams = stage.params
    writer = ArtifactWriter(store, stage.output)
    try:
        report = _Staging(params, writer, Progress(params, events)).run()
    except BaseException:
        for info in list(store.list(stage.output)):
            store.delete(info.key)
        raise
    writer.write_bytes("report.json", canonical_json(report))
    counts = {name: split.records for name, split in report.splits.items() if split.shards}
    writer.commit(records=counts)
    return report


class _Staging:
    def __init__(self, params: DataParams, writer: ArtifactWriter, progress: Progress) -> None:
        self._params, self._writer, self._progress = params, writer, progress
        self._reports: dict[str, SplitReport] = {}
        self._sinks: dict[str, Sink] = {}
        self._has_others = len(params.splits) > 1 or params.eval_fraction is not None

    def run(self) -> DataReport:
        for name, files in self._params.splits.items():
            if any(file.format == "custom" for file in files):
                self._carry_along(name, files[0])
            elif name == "train" and self._params.eval_fraction is not None:
                self._divide(self._params.eval_fraction)
            else:
                self._stage(name)
        return self._report()

    def _stage(self, name: str) -> None:
        source = SplitInput(name, self._params, self._progress)
        with ShardWriter(self._writer, name) as shards, self._sink(name, shards) as sink:
            for file in self._params.splits[name]:
                source.read(file, sink.add)
            source.require_usable()
        self._reports[name] = sink.report(source.files, source.bad_records, source.bad, shards.names)

    def _divide(self, fraction: float) -> None:
        """The training files, a share of whose records goes to `eval`."""
        source, division = (
            SplitInput("train", self._params, self._progress),
            Division(fraction, self._params.seed),
        )
        with contextlib.ExitStack() as stack:
            shards = {
                name: stack.enter_context(ShardWriter(self._writer, name)) for name in ("train", "eval")
            }
            sinks = {name: stack.enter_context(self._sink(name, shards[name])) for name in shards}

            def take(record: GoodRecord, copies: int) -> None:
                for name, settled, times in division.divide(record, copies):
                    sinks[name].add(settled, times)

            for file in self._params.splits["train"]:
                source.read(file, take)
            source.require_usable()
            for name, settled, times in division.finish():
                sinks[name].add(settled, times)
            _require_both(sinks, fraction)
        aside = FileReport(path="data.train", said=f"set aside, {fraction:.3g} of the questions")
        self._reports["train"] = sinks["train"].report(
            source.files, source.bad_records, source.bad, shards["train"].names
        )
        self._reports["eval"] = sinks["eval"].report([aside], 0, [], shards["eval"].names)

    @contextlib.contextmanager
    def _sink(self, name: str, shards: ShardWriter) -> Iterator[Sink]:
        """The split's sink; mixed training records are written when it is left."""
        is_train = name == "train"
        shuffler = Shuffler(shards.write, self._params.seed) if is_train and self._params.shuffle else None
        write = shuffler.write if shuffler else shards.write
        self._sinks[name] = sink = Sink(write, repeats=is_train, prompts=self._has_others)
        yield sink
        if shuffler:
            shuffler.finish()

    def _carry_along(self, name: str, file: DataFile) -> None:
        """A custom file: its bytes, which the stage `prepare` runs."""
        source = SplitInput(name, self._params, self._progress)
        with source.here(file) as local:
            content = Path(local.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise changed(file.path)
        if not any(report.files[0].said == _CUSTOM for report in self._reports.values()):
            self._writer.write_bytes(CUSTOM_FILE, content)
        self._reports[name] = Sink(lambda line: None).report(
            [FileReport(path=file.path, said=_CUSTOM)], 0, [], []
        )

    def _report(self) -> DataReport:
        train = self._sinks.get("train")
        exact, near = train.repeats.count() if train else (0, 0)
        others = {name: sink for name, sink in self._sinks.items() if name != "train"}
        return DataReport(
            splits=self._reports,
            duplicates=exact,
            near_duplicates=near,
            overlap={name: sink.prompts.count_in(train.prompts) for name, sink in others.items()}
            if train
            else {},
            eval_test_overlap=others["test"].prompts.count_in(others["eval"].prompts)
            if others.keys() == {"eval", "test"}
            else 0,
            eval_fraction=self._params.eval_fraction,
            shuffled=self._params.shuffle,
            limited_to_records=self._params.limit_records,
        )


_CUSTOM = "Python, format custom, run by the stage prepare"


def _require_both(sinks: dict[str, Sink], fraction: float) -> None:
    """Raises UserError where all records ask the same, so that one side has none."""
    for name, sink in sinks.items():
        if sink.records == 0:
            why = f"of the records of data.train none is left for {name}: too few different questions"
            way_out = "name a file in data.eval, or leave data.eval_fraction out"
            raise UserError(
                Problem(where="", what=f"data.eval_fraction: {fraction:g}", why=why, way_out=way_out)
            )
