"""What kind of file a data file is, told from its first bytes; the suffix decides only where they don't."""

from __future__ import annotations

import csv
import enum
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

from artifacts.compression import SUFFIXES as COMPRESSED
from artifacts.compression import Compression, DamagedError, compression_of, decompressed
from artifacts.formats.columns import detect_format

_HEAD_BYTES = 64 * 1024
_BLANK = b" \t\r\n"
BOM = b"\xef\xbb\xbf"

# Files that hold data only once something has been done to them.
_FOREIGN: list[tuple[bytes, str, str]] = [
    (b"PK\x03\x04", "a ZIP archive (or an Excel workbook)", "unpack it, or export the sheet as CSV"),
    (b"BZh", "bzip2-compressed", "unpack it: bzip2 -d FILE"),
    (b"\xfd7zXZ\x00", "xz-compressed", "unpack it: xz -d FILE"),
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
    ARROW_FILE = "Arrow file"
    ARROW_STREAM = "Arrow stream"  # as `datasets` saves
    LINES = "text, a record a line"
    PARAGRAPHS = "text, records between blank lines"
    PYTHON = "Python"


#: Types that are read at places of the reader's choice, not from front to back.
RANDOM_ACCESS = (FileType.PARQUET, FileType.ARROW_FILE)

SUFFIXES = {
    ".json": FileType.JSON_LIST,
    ".jsonl": FileType.JSON_LINES,
    ".ndjson": FileType.JSON_LINES,
    ".csv": FileType.CSV,
    ".tsv": FileType.CSV,
    ".parquet": FileType.PARQUET,
    ".arrow": FileType.ARROW_STREAM,
    ".txt": FileType.LINES,
    ".text": FileType.LINES,
    ".md": FileType.LINES,
    ".py": FileType.PYTHON,
}


class FileKind(NamedTuple):
    """What a data file is, and what it is compressed with."""

    type: FileType
    compression: Compression | None = None

    def __str__(self) -> str:
        return f"{self.type} ({self.compression})" if self.compression else str(self.type)


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


def data_suffix(path: Path) -> str:
    """The suffix that tells what is in the file: of `a.jsonl.gz` it is `.jsonl`. Lower case."""
    name = path.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def detect_file_type(path: Path) -> FileKind:
    """Raises DataFileError for what is no data file, with what it seems to be."""
    require_file(path)
    suffix = data_suffix(path)
    if suffix == ".py":
        return FileKind(FileType.PYTHON)
    compression = None
    try:
        with path.open("rb") as stream:
            head = _head(stream)
            if compression := compression_of(head):
                stream.seek(0)
                with decompressed(stream, compression) as inside:
                    head = _head(inside)
    except OSError as error:
        raise DataFileError(f"can't be read: {error.strerror}") from None
    except DamagedError as error:
        raise DataFileError(str(error), "is it cut off? copy or download it again") from None
    return FileKind(_file_type(head, suffix), compression)


def _head(stream: BinaryIO) -> bytes:
    """The first bytes, from the first that is not blank on."""
    raw = stream.read(_HEAD_BYTES)
    head = raw.removeprefix(BOM).lstrip(_BLANK)
    while not head:  # a file may begin with any amount of blank space
        if not (raw := stream.read(_HEAD_BYTES)):
            raise DataFileError("the file holds nothing but blank space")
        head = raw.lstrip(_BLANK)
    return head


def _file_type(head: bytes, suffix: str) -> FileType:
    for magic, file_type in _BINARY.items():
        if head.startswith(magic):
            return file_type
    is_text = SUFFIXES.get(suffix) is FileType.LINES
    for magic, what, way_out in _FOREIGN:
        if head.startswith(magic) and not (is_text and magic == b"<"):
            raise DataFileError(f"the file is {what}", way_out)
    if b"\0" in head[:4]:
        raise DataFileError("binary data or UTF-16 (NUL bytes)", "save it as UTF-8 text, or as Parquet")
    for bracket, file_type in ((rb"\[", FileType.JSON_LIST), (rb"\{", FileType.JSON_LINES)):
        if re.match(bracket, head) and (not is_text or re.match(bracket + rb'\s*[\[\]{}"]', head)):
            return file_type
    match SUFFIXES.get(suffix):
        case FileType.CSV:
            return FileType.CSV
        case FileType.PARQUET:
            raise DataFileError("named .parquet, but it does not start with Parquet's mark PAR1")
        case FileType.ARROW_STREAM:
            raise DataFileError("named .arrow, but it starts neither as an Arrow file nor as a stream")
        case FileType.JSON_LIST | FileType.JSON_LINES:
            return FileType.JSON_LINES  # its reader says of each line what is wrong
    first_line = head.split(b"\n", 1)[0].decode("utf-8", "replace")
    names = split_header(first_line)[0]
    if detect_format(names) and len(names) > 1:
        return FileType.CSV
    if is_text:
        return FileType.PARAGRAPHS if re.search(rb"\n[ \t\r]*\n\s*\S", head) else FileType.LINES
    raise DataFileError(
        f"can't tell what it is: it starts with {first_line[:30]!r}",
        "use JSON (a list, or an object a line), CSV with a header, Parquet, Arrow, or a .txt file",
    )


_BINARY = {
    b"PAR1": FileType.PARQUET,
    b"ARROW1": FileType.ARROW_FILE,
    b"\xff\xff\xff\xff": FileType.ARROW_STREAM,  # the stream's continuation mark
}


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
