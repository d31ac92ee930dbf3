"""What the data stage found: `report.json` of its artifact."""

from __future__ import annotations

from dataclasses import dataclass, field

from artifacts.readers import BadRecord


@dataclass(frozen=True, kw_only=True)
class FileReport:
    path: str
    said: str  # file type and format
    records: int = 0
    bad_records: int = 0
    ignored_columns: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """`characters` counts Unicode characters by role; `shards` are file names in the artifact."""

    files: list[FileReport]
    records: int
    bad_records: int
    bad: list[BadRecord]  # the first 100
    characters: dict[str, int]
    longest_record_characters: int
    shards: list[str]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """`report.json` of a data artifact.

    `duplicates` counts training records that repeat an earlier one, message by message;
    `overlap` by split (eval, test) the records whose prompt, all messages but the last, is also a training
    record's. Both are found by 64-bit hashes.
    """

    splits: dict[str, SplitReport]
    duplicates: int = 0
    overlap: dict[str, int] = field(default_factory=dict)
    limited_to_records: int | None = None  # per split, in a rehearsal
