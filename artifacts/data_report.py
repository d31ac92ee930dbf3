"""What the data stage found: `report.json` of its artifact."""

from __future__ import annotations

from dataclasses import dataclass, field

from artifacts.readers import BadRecord


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """A file of a split. `records` counts its good ones that were read (up to its data set's limit), `lines`
    what they became: more or fewer by the weight, or by corrections."""

    path: str
    said: str  # file type and format
    records: int = 0
    bad_records: int = 0
    lines: int = 0
    weight: float = 1.0
    lost: dict[str, int] = field(default_factory=dict)  # what was not passed on (a column, a key): records


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """`records` are those that the shards hold; `characters` counts Unicode characters by role, or of `text`;
    `shards` are file names in the artifact."""

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

    `duplicates` counts training records that repeat an earlier one, message by message, and
    `near_duplicates` those that do so but for case, spaces and punctuation; weights repeat nothing.
    `overlap` counts by split (eval, test) the records whose prompt, all messages but the last, is also a
    training record's, `eval_test_overlap` those of test that are also in eval. All are found by 64-bit
    hashes.
    """

    splits: dict[str, SplitReport]
    duplicates: int = 0
    near_duplicates: int = 0
    overlap: dict[str, int] = field(default_factory=dict)
    eval_test_overlap: int = 0
    eval_fraction: float | None = None  # of the training records, set aside as eval
    shuffled: bool = False
    limited_to_records: int | None = None  # per split, in a rehearsal
