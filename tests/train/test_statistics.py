import json

import numpy as np

from artifacts.contract import IGNORED_LABEL
from train.data.statistics import HISTOGRAM_BUCKETS, SplitStatistics
from train.data.tokenize import Document


def test_counts_shares_and_histogram():
    statistics = SplitStatistics(max_length=40, records=4, truncated=1, sequences=2)
    for length in (1, 2, 3, 40, 41):
        statistics.count_length(length)
    for length in (30, 20):
        labels = np.full(length, IGNORED_LABEL, np.int32)
        labels[-5:] = 7
        statistics.count_document(Document(np.zeros(length, np.int32), labels))
    statistics.dropped["no supervised token"] += 2
    report = json.loads(json.dumps(statistics.to_json()))

    assert report["tokens"] == 50
    assert report["supervised_tokens"] == 10
    assert report["padding_share"] == 1 - 50 / 80
    assert report["documents_per_sequence"] == 1.0
    assert report["dropped"] == {"no supervised token": 2}
    assert report["longest_document"] == 41
    histogram = report["length_histogram"]
    assert len(histogram) == HISTOGRAM_BUCKETS + 1
    assert histogram[0] == {"up_to": 2, "documents": 2}
    assert histogram[1] == {"up_to": 4, "documents": 1}
    assert histogram[-2] == {"up_to": 40, "documents": 1}
    assert histogram[-1] == {"up_to": None, "documents": 1}


def test_histogram_bounds_agree_with_where_lengths_are_counted():
    for max_length in (8, 19, 20, 21, 100, 2048):
        for length in range(1, max_length + 1):
            statistics = SplitStatistics(max_length=max_length)
            statistics.count_length(length)
            rows = statistics.to_json()["length_histogram"]
            bucket = next(i for i, row in enumerate(rows) if row["documents"])
            assert (rows[bucket - 1]["up_to"] if bucket else 0) < length <= rows[bucket]["up_to"]


def test_an_empty_split_has_no_shares():
    report = SplitStatistics(max_length=10).to_json()
    assert (report["padding_share"], report["documents_per_sequence"]) == (0.0, 0.0)
