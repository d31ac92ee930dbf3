"""Writing objects to S3: a single request for small ones, parts in parallel for large files and for streams
of unknown length. Nothing shows under the key until the last request, which shows the whole at once."""

from __future__ import annotations

import base64
import contextlib
import io
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.s3_client import Connection, error_code
from artifacts.store import Sent, StoreError

MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MEBIBYTE = 1024 * 1024
_STREAM_PARTS = 4  # of one stream on their way at a time: memory stays bounded where many streams are open
_GONE = ("NoSuchUpload", "InvalidPart")  # another writer has finished or replaced the upload


@dataclass(frozen=True)
class Target:
    """Where an object goes, by its full name in the bucket."""

    connection: Connection
    bucket: str
    name: str

    @property
    def where(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.name}


def part_bytes_for(size_bytes: int, wanted_bytes: int) -> int:
    """Size of a file's parts: what is wanted, or the fewest MiB that make do with 10,000 parts."""
    least = -(-size_bytes // MAX_PARTS)
    return max(wanted_bytes, -(-least // _MEBIBYTE) * _MEBIBYTE)


def stream_part_bytes(number: int, wanted_bytes: int) -> int:
    """Size of part `number` (from 1) of a stream whose length nobody knows: doubles with each thousand."""
    return wanted_bytes << ((number - 1) // 1000)


def put_bytes(target: Target, data: bytes | bytearray, **options: Any) -> None:
    """One object in one request."""
    target.connection.client.put_object(**target.where, Body=data, ChecksumCRC32=_crc32(data), **options)


def put_file(target: Target, source: Path, metadata: dict[str, str], sent: Sent) -> None:
    """One file, in parts read from it as they are sent. Goes on with an upload of it that was cut off; if
    this one is cut off, what has arrived stays for the next."""
    size_bytes = source.stat().st_size
    if size_bytes <= target.connection.part_bytes:
        put_bytes(target, _read(source, 0, size_bytes), Metadata=metadata)
        sent(size_bytes)
        return
    leftover = _newest_upload(target)
    if (
        leftover is not None
        and _put_parts(target, source, size_bytes, leftover, sent, leftover=True)
        # An upload keeps the metadata that it was begun with, perhaps for an earlier content.
        and target.connection.client.head_object(**target.where).get("Metadata") == metadata
    ):
        return
    fresh = _begin(target, metadata)
    if not _put_parts(target, source, size_bytes, fresh, sent, leftover=False):
        raise StoreError(f"s3://{target.bucket}/{target.name}", "another writer of it ended the upload")


def _put_parts(
    target: Target, source: Path, size_bytes: int, upload_id: str, sent: Sent, *, leftover: bool
) -> bool:
    """Send what the upload lacks, and complete it. False where it has meanwhile ended otherwise."""
    part_bytes = part_bytes_for(size_bytes, target.connection.part_bytes)
    futures: list[Future[dict[str, Any]]] = []

    def put(number: int, there: dict[str, Any]) -> dict[str, Any]:
        start = (number - 1) * part_bytes
        data = _read(source, start, min(part_bytes, size_bytes - start))
        same = there.get("Size") == len(data) and there.get("ChecksumCRC32") == _crc32(data)
        part = there if same else _put_part(target, upload_id, number, data)
        sent(len(data))
        return _listed(part, number)

    try:
        there = {part["PartNumber"]: part for part in _parts(target, upload_id)} if leftover else {}
        for number in range(1, -(-size_bytes // part_bytes) + 1):
            futures.append(target.connection.pool.submit(put, number, there.get(number, {})))
        _complete(target, upload_id, [future.result() for future in futures])
    except target.connection.client.exceptions.ClientError as error:
        if error_code(error) not in _GONE:
            raise
        return False
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    return True


class UploadStream(io.RawIOBase):
    """A write-only stream that becomes the object on `finish`, and nothing on `abandon`."""

    def __init__(self, target: Target) -> None:
        self._target, self._buffer = target, bytearray()
        self._upload_id: str | None = None
        self._parts: list[Future[dict[str, Any]]] = []
        self._on_their_way: deque[Future[dict[str, Any]]] = deque()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        position = 0
        while position < view.nbytes:
            wanted = stream_part_bytes(len(self._parts) + 1, self._target.connection.part_bytes)
            room = wanted - len(self._buffer)
            self._buffer += view[position : position + room]
            position += room
            if len(self._buffer) == wanted:
                self._send()
        return view.nbytes

    def finish(self) -> None:
        if self._upload_id is None:
            put_bytes(self._target, self._buffer)
            return
        if self._buffer:
            self._send()
        _complete(self._target, self._upload_id, [part.result() for part in self._parts])

    def abandon(self) -> None:
        for part in self._on_their_way:
            part.cancel()
        wait(self._on_their_way)
        if self._upload_id is not None:
            abort(self._target, self._upload_id)

    def _send(self) -> None:
        """Hand the buffer over, once there is room on the way. Raises what an earlier part ended with."""
        if self._upload_id is None:
            self._upload_id = _begin(self._target, {})
        if len(self._on_their_way) == _STREAM_PARTS:
            self._on_their_way.popleft().result()
        number, data, upload_id = len(self._parts) + 1, self._buffer, self._upload_id
        self._buffer = bytearray()
        put = self._target.connection.pool.submit(
            lambda: _listed(_put_part(self._target, upload_id, number, data), number)
        )
        self._parts.append(put)
        self._on_their_way.append(put)


def uploads(connection: Connection, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Multipart uploads under way or left behind, as the service lists them."""
    pages = connection.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from page.get("Uploads", [])


def size_bytes_of(target: Target, upload_id: str) -> int:
    return sum(part["Size"] for part in _parts(target, upload_id))


def abort(target: Target, upload_id: str) -> None:
    with contextlib.suppress(target.connection.client.exceptions.ClientError):  # ended, or left to `gc`
        target.connection.client.abort_multipart_upload(**target.where, UploadId=upload_id)


def _newest_upload(target: Target) -> str | None:
    try:
        found = [
            upload
            for upload in uploads(target.connection, target.bucket, target.name)
            if upload["Key"] == target.name
        ]
    except target.connection.client.exceptions.ClientError:  # not allowed, or not known to the service
        return None
    return max(found, key=lambda upload: upload["Initiated"])["UploadId"] if found else None


def _parts(target: Target, upload_id: str) -> list[dict[str, Any]]:
    pages = target.connection.client.get_paginator("list_parts").paginate(**target.where, UploadId=upload_id)
    return [part for page in pages for part in page.get("Parts", [])]


def _begin(target: Target, metadata: dict[str, str]) -> str:
    made = target.connection.client.create_multipart_upload(
        **target.where, ChecksumAlgorithm="CRC32", Metadata=metadata
    )
    return str(made["UploadId"])


def _put_part(target: Target, upload_id: str, number: int, data: bytearray) -> dict[str, Any]:
    answer: dict[str, Any] = target.connection.client.upload_part(
        **target.where, UploadId=upload_id, PartNumber=number, Body=data, ChecksumCRC32=_crc32(data)
    )
    return answer


def _listed(part: dict[str, Any], number: int) -> dict[str, Any]:
    """A part as `_complete` names it: with its checksum where the service keeps checksums."""
    names = [name for name in ("ETag", "ChecksumCRC32") if part.get(name)]
    return {"PartNumber": number, **{name: part[name] for name in names}}


def _complete(target: Target, upload_id: str, parts: list[dict[str, Any]]) -> None:
    target.connection.client.complete_multipart_upload(
        **target.where, UploadId=upload_id, MultipartUpload={"Parts": parts}
    )


def _read(source: Path, start: int, size_bytes: int) -> bytearray:
    data = bytearray(size_bytes)
    with source.open("rb", buffering=0) as stream:
        stream.seek(start)
        view, have = memoryview(data), 0
        while have < size_bytes:
            count = stream.readinto(view[have:])
            if not count:
                raise OSError(f"{source}: shorter than it was; something else writes to it")
            have += count
    return data


def _crc32(data: bytes | bytearray) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
