"""What kind of file a data file is, told from its first bytes; the suffix decides only where they don't."""

from __future__ import annotations

import csv
import enum
import os
import stat
from pathlib import Path

from artifacts.conversations import detect_format

_HEAD_BYTES = 64 * 1024
_BLANK = b" \t\r\n"
BOM = b"\xef\xbb\xbf"

# Files that hold data only once something has been done to them.
_FOREIGN: list[tuple[bytes, str, str]] = [
    (b"\x1f\x8b", "gzip-compressed", "unpack it: gzip -d FILE"),
    (b"PK\x03\x04", "a ZIP archive (or an Excel workbook)", "unpack it, or export the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it: zstd -d FILE"),
    (b"BZh", "bzip2-compressed", "unpack it: bzip2 -d FILE"),
    (b"\xfd7zXZ\x00", "xz-compressed", "unpack it: xz -d FILE"),
    (b"ARROW1", "an Arrow file", "save it as Parquet or JSON lines"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it: git lfs pull"),
    (b"<", "HTML or XML (a saved error page?)", "download the file again"),
]


class FileType(enum.StrEnum):
    JSON_LIST = "JSON list"
    JSON_LINES = "JSON lines"
    CSV = "CSV"
    PARQUET = "Parquet"


SUFFIXES = {
    ".json": FileType.JSON_LIST,
    ".jsonl": FileType.JSON_LINES,
    ".ndjson": FileType.JSON_LINES,
    ".csv": FileType.CSV,
    ".tsv": FileType.CSV,
    ".parquet": FileType.PARQUET,
}


class DataFileError(ValueError):
    """The file as a whole can't be used: why, and the way out."""

    def __init__(self, why: str, way_out: str = "") -> None:
        self.why, self.way_out = why, way_out
        super().__init__(f"{why}; {way_out}" if way_out else why)


def require_file(path: Path) -> None:
    """Raises DataFileError unless `path` is a regular, readable, non-empty file. Opens nothing."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise DataFileError(f"a symbolic link to {path.readlink()}, which does not exist") from None
        raise DataFileError("no such file", "check the path") from None
    except (OSError, ValueError) as error:
        raise DataFileError(f"can't be looked at: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise DataFileError("a folder, not a file", "name the data file in it")
    if not stat.S_ISREG(facts.st_mode):
        raise DataFileError("not a regular file (a pipe, socket or device)", "write the data to a file first")
    if not os.access(path, os.R_OK):
        raise DataFileError("permission denied", "make it readable: chmod +r FILE")
    if facts.st_size == 0:
        raise DataFileError("the file is empty (0 bytes)")


def detect_file_type(path: Path) -> FileType:
    """Raises DataFileError for what is no data file, with what it seems to be."""
    require_file(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(_HEAD_BYTES)
            head = raw.removeprefix(BOM).lstrip(_BLANK)
            while not head:  # a file may begin with any amount of blank space
                if not (raw := stream.read(_HEAD_BYTES)):
                    raise DataFileError("the file holds nothing but blank space")
                head = raw.lstrip(_BLANK)
    except OSError as error:
        raise DataFileError(f"can't be read: {error.strerror}") from None
    return _file_type(head, path.suffix.lower())


def _file_type(head: bytes, suffix: str) -> FileType:
    if head.startswith(b"PAR1"):
        return FileType.PARQUET
    for magic, what, way_out in _FOREIGN:
        if head.startswith(magic):
            raise DataFileError(f"the file is {what}", way_out)
    if b"\0" in head[:4]:
        raise DataFileError("binary data or UTF-16 (NUL bytes)", "save it as UTF-8 text, or as Parquet")
    if head.startswith(b"["):
        return FileType.JSON_LIST
    if head.startswith(b"{"):
        return FileType.JSON_LINES
    match SUFFIXES.get(suffix):
        case FileType.CSV:
            return FileType.CSV
        case FileType.PARQUET:
            raise DataFileError("named .parquet, but it does not start with Parquet's mark PAR1")
        case FileType.JSON_LIST | FileType.JSON_LINES:
            return FileType.JSON_LINES  # its reader says of each line what is wrong
    first_line = head.split(b"\n", 1)[0].decode("utf-8", "replace")
    if detect_format(split_header(first_line)[0]):
        return FileType.CSV
    raise DataFileError(
        f"can't tell what it is: it starts with {first_line[:30]!r}",
        "use JSON (a list, or an object a line), CSV with a header, or Parquet",
    )


def split_header(line: str) -> tuple[list[str], str]:
    """(column names, delimiter) of a CSV header: the delimiter that yields known columns, else the comma."""
    names: list[str] = []
    for delimiter in ("\t", ";", "|", ","):
        try:
            row = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            row = []
        names = [name.strip() for name in row]
        if detect_format(names):
            break
    return names, delimiter
