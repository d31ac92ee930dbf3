"""The store in an S3 bucket, under a prefix."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from artifacts import s3_transfer
from artifacts.s3_client import Connection, connect, error_code, settings, translated
from artifacts.s3_reader import open_object, read_object
from artifacts.s3_transfer import Target, UploadStream
from artifacts.store import ObjectInfo, Sent, StoreError, UnfinishedWrite, key_parts

_MAX_NAME_BYTES = 1024
_DELETED_AT_A_TIME = 1000  # most that one request may name
_CONFLICT_TRIES, _CONFLICT_PAUSE_S = 20, 0.1
_SHA256, _WRITER = "sha256", "writer"  # metadata of objects


class S3Store:
    """`artifacts.store.Store` over `s3://bucket/prefix`. Makes no connection before the first request."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._settings = settings()
        self._bucket_seen = False

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def concurrency(self) -> int:
        return self._connection.concurrency

    def read_bytes(self, key: str) -> bytes:
        with self._translated(key):
            return read_object(self._connection, self.bucket, self._name(key))

    def open_read(self, key: str) -> BinaryIO:
        with self._translated(key):
            return open_object(self._connection, self.bucket, self._name(key))

    @contextlib.contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        with self._translated(key):
            stream = UploadStream(self._target(key))
            try:
                yield cast(BinaryIO, stream)
                stream.finish()
            except BaseException:
                stream.abandon()
                raise

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        with self._translated(key):
            if if_absent:
                return self._write_if_absent(self._target(key), data)
            s3_transfer.put_bytes(self._target(key), data)
            return True

    def _write_if_absent(self, target: Target, data: bytes) -> bool:
        """A lost answer is asked for again, and then finds the key taken: by whom, the object's metadata say.
        409 means that another write of the key is under way."""
        writer = {_WRITER: uuid.uuid4().hex}
        for _ in range(_CONFLICT_TRIES):
            try:
                s3_transfer.put_bytes(target, data, IfNoneMatch="*", Metadata=writer)
                return True
            except target.connection.client.exceptions.ClientError as error:
                if error_code(error) in ("PreconditionFailed", "412"):
                    return self._metadata(target).get(_WRITER) == writer[_WRITER]
                if error_code(error) not in ("ConditionalRequestConflict", "409"):
                    raise
                time.sleep(_CONFLICT_PAUSE_S)
        raise StoreError(self.uri, f"{target.name}: writers of this key keep being in each other's way")

    def put_file(
        self, key: str, source: Path, *, move: bool = False, sha256: str = "", sent: Sent | None = None
    ) -> None:
        metadata = {_SHA256: sha256} if sha256 else {}
        with self._translated(key):
            s3_transfer.put_file(self._target(key), source, metadata, sent or (lambda _: None))
        if move:
            source.unlink()

    def holds(self, key: str, sha256: str) -> bool:
        with self._translated(key):
            return self._metadata(self._target(key)).get(_SHA256) == sha256

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        root = f"{self.prefix}/" if self.prefix else ""
        start = f"{root}{prefix}/" if prefix else root
        with self._translated(prefix):
            pages = self._connection.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=start):
                for found in page.get("Contents", []):
                    if not found["Key"].endswith("/"):  # a folder that some other tool has made
                        yield ObjectInfo(found["Key"].removeprefix(root), found["Size"])

    def exists(self, key: str) -> bool:
        with self._translated(key):
            return self._head(self._target(key)) is not None

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._connection.client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def delete_many(self, keys: Iterable[str]) -> None:
        names = [{"Key": self._name(key)} for key in keys]
        for start in range(0, len(names), _DELETED_AT_A_TIME):
            some: Any = {"Objects": names[start : start + _DELETED_AT_A_TIME], "Quiet": True}
            with self._translated(""):
                answer = self._connection.client.delete_objects(Bucket=self.bucket, Delete=some)
            if problems := answer.get("Errors"):
                first = problems[0]
                why = f"{len(problems)} objects can't be deleted: {first['Key']}: {first.get('Message')}"
                raise StoreError(self.uri, why)

    def unfinished(self, older_than_s: float) -> Iterator[UnfinishedWrite]:
        root = f"{self.prefix}/" if self.prefix else ""
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_s)
        with self._translated(""):
            for upload in list(s3_transfer.uploads(self._connection, self.bucket, root)):
                if upload["Initiated"] < before:
                    target = Target(self._connection, self.bucket, upload["Key"])
                    size_bytes = s3_transfer.size_bytes_of(target, upload["UploadId"])
                    name = upload["Key"].removeprefix(root)
                    yield UnfinishedWrite(name=name, size_bytes=size_bytes, token=upload["UploadId"])

    def discard(self, write: UnfinishedWrite) -> None:
        with self._translated(write.name):
            s3_transfer.abort(self._target(write.name), write.token)

    def local_path(self, key: str) -> None:
        return None

    @property
    def _connection(self) -> Connection:
        return connect(os.getpid(), self._settings)

    def _target(self, key: str) -> Target:
        return Target(self._connection, self.bucket, self._name(key))

    def _name(self, key: str) -> str:
        name = "/".join([*([self.prefix] if self.prefix else []), *key_parts(key)])
        if len(name.encode()) > _MAX_NAME_BYTES:
            raise ValueError(f"not a store key: {key!r} has more than {_MAX_NAME_BYTES} bytes")
        return name

    def _translated(self, key: str) -> contextlib.AbstractContextManager[None]:
        return translated(f"store {self.uri}", key)

    def _metadata(self, target: Target) -> dict[str, str]:
        metadata: dict[str, str] = (self._head(target) or {}).get("Metadata", {})
        return metadata

    def _head(self, target: Target) -> dict[str, Any] | None:
        """What the service says of an object, None where it is not there. It says 404 alike for an object and
        for a bucket, so the first time the bucket is asked for too."""
        client = target.connection.client
        try:
            answer: dict[str, Any] = client.head_object(**target.where)
            return answer
        except client.exceptions.ClientError as error:
            if error_code(error) not in ("404", "NoSuchKey", "NotFound"):
                raise
        if not self._bucket_seen:
            client.list_objects_v2(
                Bucket=self.bucket, MaxKeys=1
            )  # says NoSuchBucket where a HEAD has no words
            self._bucket_seen = True
        return None
