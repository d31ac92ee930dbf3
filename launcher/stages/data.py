"""Stage `data`, planning half: which files, of which format and content; the first 64 MB of each is checked.

(`launcher.stages.data_run` is the other half: it checks every record and writes the artifact.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from artifacts.contract import DataFile, DataParams, Derived, StageKind, StagePlan
from launcher.digests import Digests
from launcher.errors import Problem
from launcher.spec.data import SPLITS, Data
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages.data_files import DataFiles, NoFilesError
from launcher.stages.data_look import CheckHead, Found, Looking, read_head, shown
from launcher.stages.keys import CodeDigest, stage, stage_key

__all__ = ["CheckHead", "Found", "content", "find", "params", "plan", "shown"]


def find(job: Loaded[Job], digests: Digests, code: CodeDigest, check_head: CheckHead | None = None) -> Found:
    """Look at every data file of the job: is it one, what is in its head, and its SHA-256."""
    found = Found()
    data = job.value.data
    files = DataFiles(data, job.path.absolute().parent)
    look = Looking(job, digests, code(StageKind.DATA), check_head or read_head)
    for split in SPLITS:
        for index, (place, data_set) in enumerate(data.data_sets(split)):
            try:
                named = files.of(data_set)
            except NoFilesError as error:
                found.problems.append(look.problem(place, data_set.path, error.fault))
                continue
            for name in named.names:
                if file := look.at(place, name, named, found):
                    found.splits.setdefault(split, []).append(dataclasses.replace(file, data_set=index))
    found.problems += _mixtures(job, found.splits)
    found.derived += _derived(data)
    return found


def _mixtures(job: Loaded[Job], splits: Mapping[str, list[DataFile]]) -> Iterator[Problem]:
    """Custom files go with nothing else."""
    custom = {split: [file for file in files if file.format == "custom"] for split, files in splits.items()}

    def problem(what: str, why: str, way_out: str) -> Problem:
        return Problem(where=job.where(what), what=what, why=why, way_out=way_out)

    for split, files in custom.items():
        if files and len(splits[split]) > 1:
            why = "a custom file is a data set of its own, with no other beside it"
            yield problem(f"data.{split}", why, "let it read the other files, too")
        elif files and split == "test":
            why = "a custom file's items may be tokens, which hold no question"
            yield problem("data.test", why, "write the questions to a file of messages")
        elif files and split == "train" and job.value.data.eval_fraction is not None:
            why = "of a custom file's items nothing can be set aside"
            way_out = "name it in data.eval as well: it is called with split='validation'"
            yield problem("data.eval_fraction", why, way_out)
    if len({file.sha256 for files in custom.values() for file in files}) > 1:
        why = "one custom file serves all splits, and these differ"
        yield problem("data", why, "tell the splits apart by `split`")


def _derived(data: Data) -> Iterator[Derived]:
    if data.eval_fraction is not None:
        reason = f"{data.eval_fraction:g} of the training records, set aside by their questions"
        yield Derived(field="data.eval", value=data.eval_fraction, reason=reason)
    if data.shuffle is None and _shuffles(data):
        yield Derived(field="data.shuffle", value=True, reason="mixed, as there are several data sets")


def _shuffles(data: Data) -> bool:
    """Mixed, unless the job says otherwise, is what comes from several data sets."""
    return len(data.data_sets("train")) > 1 if data.shuffle is None else data.shuffle


def params(job: Job, found: Found, limit_records: int | None) -> DataParams:
    return DataParams(
        splits=found.splits,
        on_error=job.data.on_error,
        limit_records=limit_records,
        eval_fraction=job.data.eval_fraction,
        shuffle=_shuffles(job.data),
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
