"""The head of a data file, read as the data stage would: what the plan says of it, without reading all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from artifacts.contract import Reading, RecordFormat
from artifacts.records import BadRecord, DataFileError, RecordFile

HEAD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class HeadCheck:
    """What the first bytes of a data file say. `why` is set where the file as a whole can't be used."""

    path: str
    said: str = ""
    format: RecordFormat | None = None
    records: int = 0  # good ones
    bad_records: int = 0
    bad: list[BadRecord] = field(default_factory=list)  # the first ones
    whole: bool = False  # the head was all of it
    lost: dict[str, int] = field(default_factory=dict)  # as RecordFile's
    why: str = ""
    way_out: str = ""

    @property
    def problems(self) -> list[str]:
        """One line each; empty when the head is fine."""
        if self.why:
            return [f"{self.path}: {self.why}" + (f"; {self.way_out}" if self.way_out else "")]
        lines = [str(bad) for bad in self.bad]
        if self.bad_records > len(self.bad):
            lines.append(f"{self.path}: and {self.bad_records - len(self.bad)} more bad records")
        return lines


def check_head(
    path: Path,
    format: RecordFormat | Literal["auto"] = "auto",
    reading: Reading | None = None,
    *,
    limit_bytes: int = HEAD_BYTES,
    listed: int = 10,
) -> HeadCheck:
    """Read the file's first `limit_bytes` as the data stage would; the record cut at the end is no problem.

    Never raises for what the file holds. A file without one good record in its head has `why` set.
    """
    check = HeadCheck(path=str(path))
    good = bad_count = 0
    bad: list[BadRecord] = []
    try:
        records = RecordFile(path, format, reading, limit_bytes=limit_bytes)
        check = dataclasses.replace(check, format=records.format)
        for item in records:
            if isinstance(item, BadRecord):
                bad_count += 1
                if len(bad) < listed:
                    bad.append(item)
            else:
                good += 1
        check = dataclasses.replace(check, said=records.said, whole=records.whole, lost=dict(records.lost))
    except DataFileError as error:
        return dataclasses.replace(check, why=error.why, way_out=error.way_out)
    if not good and check.format != "custom":
        why = f"no usable record; {bad[0]}" if bad else "the file holds no records"
        return dataclasses.replace(check, bad_records=bad_count, bad=bad, why=why)
    return dataclasses.replace(check, records=good, bad_records=bad_count, bad=bad)
