"""The record formats: one parsed record in, canonical records out (`artifacts.contract.DataParams`), or the
reason why not.

    reader = RecordReader("alpaca", Reading())
    reader.read({"instruction": "2 + 2?", "output": "4", "id": 7})   # [{"messages": […]}]
    reader.lost                                                      # Counter({"id": 1})
"""

from __future__ import annotations

from artifacts.contract import Reading, RecordFormat
from artifacts.formats.base import Lost, Message, Record, RecordError, describe
from artifacts.formats.columns import FORMATS, PAIRS, Columns, columns_reason, detect_format
from artifacts.formats.encode import encode_record
from artifacts.formats.messages import is_plain, read_messages
from artifacts.formats.pairs import read_jfleg, read_pair
from artifacts.formats.plain_text import read_text, read_turns
from artifacts.formats.sharegpt import read_conversations
from artifacts.formats.spacing import fix_record

__all__ = [
    "FORMATS",
    "Lost",
    "Message",
    "Record",
    "RecordError",
    "RecordReader",
    "columns_reason",
    "describe",
    "detect_format",
    "encode_record",
    "is_plain",
]


class RecordReader:
    """Reads the records of one file. `lost` counts what is not passed on, by name: columns that the format
    has no use for, keys of messages; each in how many records."""

    def __init__(self, format: RecordFormat, reading: Reading) -> None:
        self.format, self.reading = format, reading
        self.lost: Lost = Lost()
        self._columns: Columns | None = None  # settled by the first record that has them
        self._lost: Lost = Lost()  # of one record
        #: Whether `{"messages": […]}` with plain messages needs no reading at all.
        self.takes_as_is = (
            format == "messages" and not reading.fix_spacing and "messages" not in reading.columns
        )

    def read(self, value: object) -> list[Record]:
        """Mostly one record. Raises RecordError."""
        if type(value) is not dict:
            raise RecordError(
                f"not an object but {describe(value)}; each record is an object with {self.wanted}"
            )
        columns = self._columns or self.settle(value)
        if not columns.are_in(value):
            raise RecordError(columns_reason(value, self.format, columns))
        lost = self._lost
        if lost:
            lost.clear()
        records = self._convert(value, columns, lost)
        if self.reading.fix_spacing:
            records = [fix_record(record) for record in records]
        if unknown := value.keys() - columns.known:
            lost.update(name for name in unknown if _says(value[name]))
        if lost:
            self.lost.update(lost.keys())
        return records

    def settle(self, record: Record) -> Columns:
        """The columns of a file of which this is a record; for good, if it has those that are needed."""
        columns = Columns(self.format, self.reading, record)
        if columns.are_in(record):
            self._columns = columns
        return columns

    @property
    def told_columns(self) -> list[str]:
        """The columns of question and answer, or of the messages, where the format alone does not tell."""
        if self._columns is None or not (self.reading.columns or self.format in PAIRS):
            return []
        return self._columns.required

    @property
    def wanted(self) -> str:
        columns = self._columns or Columns(self.format, self.reading, ())
        return columns_reason((), self.format, columns).partition("wanted: ")[2]

    def _convert(self, record: Record, columns: Columns, lost: Lost) -> list[Record]:
        match self.format:
            case "messages":
                return [read_messages(record, columns, lost)]
            case "conversations":
                return [read_conversations(record, columns, self.reading, lost)]
            case "alpaca" | "prompt_response" | "dialogue" | "input_target":
                return [read_pair(record, columns, self.reading, lost)]
            case "jfleg":
                return read_jfleg(record, columns, self.reading, lost)
            case "text":
                return [read_text(record, columns)]
            case "turns":
                return [read_turns(record, columns, lost)]
            case "custom":
                raise RecordError("a custom file holds no records itself")


def _says(cell: object) -> bool:
    """Whether a column that is not read holds anything."""
    return cell is not None and cell != "" and cell != []
