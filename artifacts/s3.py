"""The store in an S3 bucket, under a prefix. Settings come from the environment, as the AWS SDK reads it
(AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_RETRY_MODE, AWS_MAX_ATTEMPTS); credentials by the SDK's own chain."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from artifacts.store import ObjectInfo, ObjectMissingError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_MISSING = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")


class S3Store:
    """`artifacts.store.Store` over `s3://bucket/prefix`."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._clients: dict[int, S3Client] = {}

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read_bytes(self, key: str) -> bytes:
        with self.open_read(key) as stream:
            return stream.read()

    def open_read(self, key: str) -> BinaryIO:
        with _translated(key):
            answer = self._client.get_object(Bucket=self.bucket, Key=self._name(key))
        return cast(BinaryIO, answer["Body"])

    @contextlib.contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        name = self._name(key)
        with tempfile.TemporaryFile() as stream:
            yield cast(BinaryIO, stream)
            stream.seek(0)
            self._client.upload_fileobj(stream, self.bucket, name)

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        condition: Any = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data, **condition)
        except self._client.exceptions.ClientError as error:
            if if_absent and error.response["Error"]["Code"] in _TAKEN:
                return False
            raise
        return True

    def put_file(self, key: str, source: Path, *, move: bool = False) -> None:
        self._client.upload_file(str(source), self.bucket, self._name(key))
        if move:
            source.unlink()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        root = f"{self.prefix}/" if self.prefix else ""
        start = f"{root}{prefix}/" if prefix else root
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
        for page in pages:
            for found in page.get("Contents", []):
                yield ObjectInfo(found["Key"].removeprefix(root), found["Size"])

    def exists(self, key: str) -> bool:
        try:
            with _translated(key):
                self._client.head_object(Bucket=self.bucket, Key=self._name(key))
        except ObjectMissingError:
            return False
        return True

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def local_path(self, key: str) -> None:
        return None

    @property
    def _client(self) -> S3Client:
        """One client per process: a forked child must not use its parent's connections."""
        if os.getpid() not in self._clients:
            import boto3
            from botocore.config import Config

            style = "path" if _endpoint() else "auto"
            session = boto3.session.Session()
            self._clients = {
                os.getpid(): session.client("s3", config=Config(s3={"addressing_style": style}))  # type: ignore[typeddict-item]
            }
        return self._clients[os.getpid()]

    def _name(self, key: str) -> str:
        if any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
            raise ValueError(f"not a store key: {key!r}")
        return f"{self.prefix}/{key}" if self.prefix else key


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING:
            raise ObjectMissingError(key) from error
        raise
