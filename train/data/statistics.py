"""`statistics.json` of a prepared artifact: what became of the records, per split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from train.data.tokenize import Document

HISTOGRAM_BUCKETS = 20  # of equal width, up to the maximum length; one more for longer documents


@dataclass
class SplitStatistics:
    """Counts of one split. Lengths are in tokens; `length_histogram` counts documents before truncation."""

    max_length: int
    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    #: Kinds of texts that the chat template left out of records that were kept: how many, and the first.
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    truncated: int = 0
    split: int = 0  # texts longer than the maximum length, cut into several documents
    documents: int = 0  # what was kept of the records
    tokens: int = 0
    supervised_tokens: int = 0
    sequences: int = 0
    longest_document: int = 0  # before truncation
    _histogram: np.ndarray = field(default_factory=lambda: np.zeros(HISTOGRAM_BUCKETS + 1, np.int64))

    def count_length(self, length: int) -> None:
        """A tokenized record's length before truncation."""
        bucket = min((length - 1) * HISTOGRAM_BUCKETS // self.max_length, HISTOGRAM_BUCKETS)
        self._histogram[max(bucket, 0)] += 1
        self.longest_document = max(self.longest_document, length)

    def count_left_out(self, kinds: Sequence[str]) -> None:
        """What the current record lost; `records` counts it already."""
        for kind in kinds:
            entry = self.left_out.setdefault(kind, {"records": 0, "first": self.records})
            entry["records"] += 1

    def count_document(self, document: Document) -> None:
        self.documents += 1
        self.tokens += len(document)
        self.supervised_tokens += document.supervised_tokens

    @property
    def padding_share(self) -> float:
        """Of the positions of all sequences, padded to the maximum length."""
        return 1 - self.tokens / (self.sequences * self.max_length) if self.sequences else 0.0

    def to_json(self) -> dict[str, Any]:
        """`length_histogram` rows: documents of `up_to` tokens and more than the row before; the last row,
        `up_to: null`, those over the maximum length."""
        bounds = [
            -(-self.max_length * (bucket + 1) // HISTOGRAM_BUCKETS) for bucket in range(HISTOGRAM_BUCKETS)
        ]
        values = dataclasses.asdict(self)
        del values["_histogram"]
        return values | {
            "dropped": dict(sorted(self.dropped.items())),
            "padding_share": round(self.padding_share, 6),
            "documents_per_sequence": round(self.documents / self.sequences, 3) if self.sequences else 0.0,
            "length_histogram": [
                {"up_to": bound, "documents": int(count)}
                for bound, count in zip([*bounds, None], self._histogram, strict=True)
            ],
        }
