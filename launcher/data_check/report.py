"""What `slipway data check` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from artifacts.contract import RecordFormat
from artifacts.records import BadRecord


@dataclass(frozen=True)
class Bucket:
    """Records of `up_to` units and more than the bucket before; None: all above."""

    up_to: int | None
    records: int


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What `prepare` would make of the good records. Numbers are those of records, the first ten."""

    tokenizer: str
    max_length: int
    truncated: int
    truncated_numbers: list[int]
    unsupervised: int  # records left with no supervised token
    unsupervised_numbers: list[int]
    refused: int  # by the chat template
    refused_reasons: list[str]
    total: int  # kept, after truncation
    supervised: int
    longest: int  # before truncation


@dataclass(frozen=True, kw_only=True)
class Report:
    path: str
    size_bytes: int
    said: str
    format: RecordFormat
    records: int
    bad_records: int
    bad: list[BadRecord]  # the first 20
    duplicates: int
    near_duplicates: int  # but for case, spaces and punctuation
    overlap: int | None  # questions that also occur in another file; None: not asked for
    lost: dict[str, int]  # what of the records is not passed on (a column, a key of messages): records
    unit: Literal["tokens", "characters"]  # of the histogram
    histogram: list[Bucket]
    longest_characters: int
    characters: int
    tokens: Tokens | None = None

    @property
    def ok(self) -> bool:
        """Whether `data.on_error: stop` would let the file pass."""
        return self.bad_records == 0 and (self.records > 0 or self.format == "custom")
