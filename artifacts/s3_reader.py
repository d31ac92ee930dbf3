"""Reading objects from S3: ranges fetched ahead of the reader, each gone on with where a connection broke."""

from __future__ import annotations

import io
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, BinaryIO

from artifacts.s3_client import Connection, error_code, translated
from artifacts.store import StoreError

#: Small enough for a first answer at once and for many open streams, large enough to keep a connection busy.
RANGE_BYTES = 8 * 1024 * 1024
_AHEAD = 4  # ranges of one stream, fetched or under way
_BLOCK_BYTES = 1024 * 1024
_LONGEST_PAUSE_S = 5.0


def open_object(connection: Connection, bucket: str, name: str) -> BinaryIO:
    """A stream over the object as it is now. Raises what the SDK raises, and StoreError where the object is
    replaced while it is read."""
    source = _Source(connection, bucket, name)
    first = source.first()
    if source.size_bytes <= RANGE_BYTES:
        return io.BytesIO(source.fetch(0, source.size_bytes, first))
    return io.BufferedReader(_Ranges(source, first), _BLOCK_BYTES)


def read_object(connection: Connection, bucket: str, name: str) -> bytes:
    """The whole object, in one request where nothing breaks, checked against the service's checksum."""
    from botocore.exceptions import BotoCoreError

    for attempt in range(connection.attempts):
        answer = connection.client.get_object(Bucket=bucket, Key=name, ChecksumMode="ENABLED")
        try:
            return bytes(answer["Body"].read())
        except (BotoCoreError, OSError):
            if attempt == connection.attempts - 1:
                raise
            time.sleep(_pause_s(attempt))
    raise AssertionError("no attempts")


def _pause_s(failures: int) -> float:
    return min(_LONGEST_PAUSE_S, 0.1 * 2.0**failures)


class _Source:
    """One version of one object, told from later ones by its ETag."""

    def __init__(self, connection: Connection, bucket: str, name: str) -> None:
        self.connection, self._where = connection, {"Bucket": bucket, "Key": name}
        self.name, self.uri = name, f"s3://{bucket}/{name}"
        self.size_bytes, self._etag = 0, ""

    def first(self) -> Any:
        """The body of the first range; tells the object's size and version."""
        client = self.connection.client
        try:
            answer = client.get_object(**self._where, Range=f"bytes=0-{RANGE_BYTES - 1}")
        except client.exceptions.ClientError as error:
            if error_code(error) not in ("InvalidRange", "416"):  # an empty object has no range
                raise
            answer = client.get_object(**self._where)
        total = answer.get("ContentRange", "").rpartition("/")[2]
        self.size_bytes = int(total) if total else answer["ContentLength"]
        self._etag = answer["ETag"]
        return answer["Body"]

    def fetch(self, start: int, end: int, body: Any = None) -> bytes:
        """Bytes `start` up to `end`, from `body` as far as that goes."""
        from botocore.exceptions import BotoCoreError

        data, in_vain = bytearray(), 0
        while len(data) < end - start:
            had, trouble = len(data), None
            try:
                if body is None:
                    body = self._get(start + len(data), end)
                while block := body.read(_BLOCK_BYTES):
                    data += block
            except (BotoCoreError, OSError) as error:
                trouble = error
            finally:
                if body is not None:
                    body.close()
                body = None
            in_vain = 0 if len(data) > had else in_vain + 1
            if in_vain == self.connection.attempts:
                raise trouble or StoreError(self.uri, "the service sends less of it than it says")
            if trouble is not None:
                time.sleep(_pause_s(in_vain))
        return bytes(data)

    def _get(self, start: int, end: int) -> Any:
        client = self.connection.client
        try:
            answer = client.get_object(**self._where, Range=f"bytes={start}-{end - 1}", IfMatch=self._etag)
        except client.exceptions.ClientError as error:
            if error_code(error) not in ("PreconditionFailed", "412"):
                raise
            raise StoreError(self.uri, "was replaced by another writer while it was read") from error
        return answer["Body"]


class _Ranges(io.RawIOBase):
    """The object as a stream, some ranges ahead."""

    def __init__(self, source: _Source, first: Any) -> None:
        self._source, self._block = source, memoryview(b"")
        self._pending: deque[Future[bytes]] = deque()
        self._next = 0
        self._request(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._block:
            while len(self._pending) < _AHEAD and self._next < self._source.size_bytes:
                self._request()
            if not self._pending:
                return 0
            with translated(self._source.uri, self._source.name):
                self._block = memoryview(self._pending.popleft().result())
        count = min(len(buffer), len(self._block))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def close(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        super().close()

    def _request(self, body: Any = None) -> None:
        start, end = self._next, min(self._next + RANGE_BYTES, self._source.size_bytes)
        self._pending.append(self._source.connection.pool.submit(self._source.fetch, start, end, body))
        self._next = end
