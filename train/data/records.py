"""The records of the data stage's shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: `{"messages": [...], "tools": [...]}` or `{"text": ...}` (`artifacts.contract.DataParams`).
Record = Mapping[str, Any]


def read_records(files: Iterable[Path]) -> Iterator[Record]:
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                yield json.loads(line)
