"""`python -m train.data.check FILE …`: what `prepare` would make of a data file's records.

Prints one JSON object; `slipway data check` shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.contract import EXIT_DONE, EXIT_USER_ERROR, Reading, decode
from artifacts.formats import FORMATS
from artifacts.records import GoodRecord, RecordFile
from train.data.lengths import fit
from train.data.loading import load_chat_tokenizer
from train.data.records import Record
from train.data.statistics import SplitStatistics
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer
from train.stage import StageUserError

_LISTED = 10  # records of each kind whose numbers are kept


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.data.check", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", choices=FORMATS, required=True, help="record format")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="model folder with tokenizer and template"
    )
    parser.add_argument("--reading", default="{}", help="artifacts.contract.Reading, as JSON")
    parser.add_argument("--max-length", type=int, required=True, help="tokens per sequence")
    options = parser.parse_args(argv)
    records = RecordFile(options.file, options.format, decode(Reading, json.loads(options.reading)))
    try:
        measured = measure(records, load_chat_tokenizer(options.tokenizer), options.max_length)
    except StageUserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    print(json.dumps(measured))
    return EXIT_DONE


def measure(records: RecordFile, tokenizer: ChatTokenizer, max_length: int) -> dict[str, Any]:
    """Token lengths of the good records, and the numbers of those that `prepare` would cut or leave out.

    `tokens` is `SplitStatistics.to_json()`; `truncated`, `unsupervised` and `refused` list record numbers
    (the first ten), the last with the chat template's reason.
    """
    statistics = SplitStatistics(max_length=max_length)
    truncated: list[int] = []
    unsupervised: list[int] = []
    refused: list[dict[str, Any]] = []
    numbers: deque[int] = deque()  # of the records that are being tokenized
    for encoded in tokenizer.encode(_good_records(records, numbers)):
        number = numbers.popleft()
        statistics.records += 1
        if isinstance(encoded, TemplateError):
            statistics.dropped[encoded.kind] += 1
            refused.append({"number": number, "reason": str(encoded)})
            del refused[_LISTED:]
            continue
        statistics.count_length(len(encoded))
        pieces = fit(encoded, max_length)
        if sum(map(len, pieces)) < len(encoded):
            statistics.truncated += 1
            truncated.append(number)
            del truncated[_LISTED:]
        if not any(document.supervised_tokens for document in pieces):
            statistics.dropped["no supervised token"] += 1
            unsupervised.append(number)
            del unsupervised[_LISTED:]
            continue
        for document in pieces:
            statistics.count_document(document)
    return {
        "tokens": statistics.to_json(),
        "truncated": truncated,
        "unsupervised": unsupervised,
        "refused": refused,
    }


def _good_records(records: RecordFile, numbers: deque[int]) -> Iterator[Record]:
    for item in records:
        if isinstance(item, GoodRecord):
            numbers.append(item.number)
            yield item.record


if __name__ == "__main__":
    sys.exit(main())
