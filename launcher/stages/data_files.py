"""From what a job names as a data set to its files: a file, a folder, a pattern, a name of
`dataset_info.json`, an address, a pattern of addresses."""

from __future__ import annotations

import dataclasses
import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artifacts.contract import DataFile, Reading, RecordFormat
from artifacts.dataset_info import DatasetInfoError, find_entry, read_entries
from artifacts.filetypes import SUFFIXES, data_suffix
from launcher.remote_data import has_pattern, is_remote, matching
from launcher.spec.data import Data, DataSet, absolute
from launcher.spec.files import Fault, folder_fault

#: Files that stand beside data without being data.
_BESIDE = {"dataset_info.json", "dataset_dict.json", "state.json", "README.md", "custom.py"}
MAX_FILES = 10_000


class NoFilesError(Exception):
    """The data set names no files that can be used."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.why)


@dataclass(frozen=True)
class Files:
    """A data set's files, paths or addresses, and how they are read. `note` tells where that comes from."""

    names: list[str]
    format: RecordFormat | Literal["auto"]
    reading: Reading
    limit_records: int | None
    weight: float
    note: str = ""

    def file(
        self, path: str, size_bytes: int, sha256: str, format: RecordFormat | Literal["auto"]
    ) -> DataFile:
        """One of them, once it was looked at."""
        return DataFile(
            path=path,
            size_bytes=size_bytes,
            sha256=sha256,
            format=format,
            reading=self.reading,
            weight=self.weight,
            limit_records=self.limit_records,
        )


class DataFiles:
    """Finds the files of the data sets of one job, whose folder is `folder`."""

    def __init__(self, data: Data, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._entries: dict[str, Any] | None = None

    def of(self, data_set: DataSet) -> Files:
        """Raises NoFilesError."""
        files = Files([], data_set.format or "auto", data_set.reading(), data_set.limit, data_set.weight)
        if is_remote(data_set.path):
            return dataclasses.replace(files, names=self._remote(data_set.path))
        if self._data.dataset_info is not None and "/" not in data_set.path:
            return self._named(data_set, files, Path(self._data.dataset_info))
        return dataclasses.replace(files, names=local_files(Path(data_set.path)))

    def _remote(self, address: str) -> list[str]:
        """A pattern stands for the pinned addresses that fit: the plan needs no network."""
        if not has_pattern(address):
            return [address]
        names = matching(address, self._data.pins)
        if not names:
            why = (
                "nothing that it stands for is pinned: without digests in data.pins the same job could mean "
            )
            raise NoFilesError(Fault(why + "other records tomorrow", "slipway pin JOB"))
        return names

    def _named(self, data_set: DataSet, files: Files, folder: Path) -> Files:
        """An entry of `dataset_info.json`; a file beside the job where there is none of that name."""
        path = Path(absolute(data_set.path, self._folder))
        try:
            if self._entries is None:
                self._entries = read_entries(folder)
            if data_set.path not in self._entries and path.exists():
                return dataclasses.replace(files, names=local_files(path))
            entry = find_entry(folder, self._entries, data_set.path)
        except DatasetInfoError as error:
            raise NoFilesError(Fault(error.why, error.way_out)) from None
        reading = dataclasses.replace(
            files.reading,
            columns={**entry.reading.columns, **files.reading.columns},
            tags={**entry.reading.tags, **files.reading.tags},
        )
        unused = f" (which also says {', '.join(entry.unused)}: not used)" if entry.unused else ""
        return dataclasses.replace(
            files,
            names=local_files(entry.path),
            format=entry.format,
            reading=reading,
            limit_records=data_set.limit or entry.limit_records,
            note=f"as {folder.name}/dataset_info.json says{unused}",
        )


def local_files(path: Path) -> list[str]:
    """The files that a path stands for, in the order of their names. A path that is none stays as it is, for
    whoever looks at files to say what is wrong with it. Raises NoFilesError."""
    if path.is_dir():
        return _in_folder(path)
    if not glob.has_magic(str(path)) or path.exists():
        return [str(path)]
    names = [name for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]  # noqa: PTH207
    if not names:
        raise NoFilesError(Fault("no file has a name of this pattern"))
    return _few(names)


def _in_folder(folder: Path) -> list[str]:
    if fault := folder_fault(folder):
        raise NoFilesError(fault)
    names = [
        str(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and _is_data(path)
    ]
    if not names:
        below = next((path for path in sorted(folder.iterdir()) if path.is_dir()), None)
        way_out = f"name a folder in it, as {below}, or a pattern, as {folder}/**/*.jsonl" if below else ""
        raise NoFilesError(Fault("the folder holds no data file", way_out))
    return _few(names)


def _is_data(path: Path) -> bool:
    suffix = data_suffix(path)
    return suffix in SUFFIXES and suffix not in (".py", ".md") and path.name not in _BESIDE


def _few(names: list[str]) -> list[str]:
    if len(names) > MAX_FILES:
        raise NoFilesError(Fault(f"stands for {len(names):,} files", f"at most {MAX_FILES:,}: join them"))
    return names
