"""What `artifacts.s3` decides without a network. tests/cluster/test_s3_store.py has a service."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore import exceptions as sdk
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from artifacts import s3, s3_client, s3_reader, s3_transfer
from artifacts.s3 import S3Store
from artifacts.s3_client import Connection, translated
from artifacts.store import ObjectMissingError, StoreError, UnfinishedWrite, open_store
from tests.artifacts.store_conformance import ROOT

MEBIBYTE = 1024 * 1024


@given(size_bytes=st.integers(1, 50 * 10**12), wanted=st.integers(5 * MEBIBYTE, 100 * MEBIBYTE))
def test_a_file_has_no_more_parts_than_the_service_takes(size_bytes: int, wanted: int) -> None:
    part_bytes = s3_transfer.part_bytes_for(size_bytes, wanted)
    assert -(-size_bytes // part_bytes) <= 10_000 and part_bytes >= wanted
    assert part_bytes == wanted or (part_bytes - MEBIBYTE) * 10_000 < size_bytes


def test_a_stream_may_become_as_large_as_any_object() -> None:
    parts = [s3_transfer.stream_part_bytes(number, 5 * MEBIBYTE) for number in range(1, 10_001)]
    assert parts[0] == 5 * MEBIBYTE and parts == sorted(parts) and sum(parts) > 5 * 10**12


def test_opening_a_store_loads_and_asks_nothing() -> None:
    program = (
        "import sys; from artifacts.store import open_store; print(open_store('s3://bucket/a/b/').uri)\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("s3://bucket/a/b\n", "")
    assert open_store("s3://bucket").uri == open_store("s3://bucket/").uri == "s3://bucket"
    assert open_store("s3://bucket/a").local_path("key") is None


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client whose answers a test writes down before."""
    client = boto3.session.Session(aws_access_key_id="key", aws_secret_access_key="secret").client(
        "s3", region_name="us-east-1"
    )
    connection = Connection(client, ThreadPoolExecutor(1), concurrency=1, part_bytes=5 * MEBIBYTE, attempts=3)
    monkeypatch.setattr(s3, "connect", lambda pid, settings: connection)
    monkeypatch.setattr(s3, "_CONFLICT_PAUSE_S", 0.0)
    monkeypatch.setattr(s3_reader, "_LONGEST_PAUSE_S", 0.0)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def test_a_key_too_long_for_the_service_is_none() -> None:
    store = S3Store("bucket", "prefix")
    for key in ("x" * 1018, "é" * 509, "../x"):
        with pytest.raises(ValueError, match="not a store key"):
            store.exists(key)


def test_of_writers_in_each_others_way_one_tries_again(service: Stubber) -> None:
    service.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    service.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    service.add_response("put_object", {})
    assert S3Store("bucket").write_bytes("lock", b"", if_absent=True)
    service.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    service.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    service.add_response("head_object", {"Metadata": {"writer": "another"}})
    assert not S3Store("bucket").write_bytes("lock", b"", if_absent=True)


def test_writers_that_never_stop_colliding_are_an_error(service: Stubber) -> None:
    for _ in range(20):
        service.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    with pytest.raises(StoreError, match="in each other's way"):
        S3Store("bucket").write_bytes("lock", b"", if_absent=True)


def test_a_service_that_may_not_list_uploads_gets_the_file_anew(service: Stubber, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(6 * MEBIBYTE))
    where = {"Bucket": "bucket", "Key": "p/file", "UploadId": "id"}
    service.add_client_error("list_multipart_uploads", "AccessDenied", http_status_code=403)
    service.add_response("create_multipart_upload", {"UploadId": "id"})
    for number in (1, 2):
        sent = {**where, "PartNumber": number, "Body": ANY, "ChecksumCRC32": ANY}
        service.add_response("upload_part", {"ETag": f"tag-{number}"}, sent)
    parts = [{"PartNumber": number, "ETag": f"tag-{number}"} for number in (1, 2)]
    service.add_response(
        "complete_multipart_upload", {}, {**where, "MultipartUpload": {"Parts": parts}}
    )  # no checksums: this service has none
    S3Store("bucket", "p").put_file("file", tmp_path / "file")


def test_an_object_that_grows_is_not_mixed_with_its_past(service: Stubber) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise sdk.ReadTimeoutError(endpoint_url="x")

        def close(self) -> None: ...

    first = {"Body": Broken(), "ContentRange": "bytes 0-99/100", "ContentLength": 100, "ETag": "old"}
    again = {"Bucket": "bucket", "Key": "a", "Range": "bytes=0-99", "IfMatch": "old"}
    service.add_response("get_object", first)
    service.add_client_error("get_object", "PreconditionFailed", http_status_code=412, expected_params=again)
    with pytest.raises(StoreError, match="replaced by another writer"):
        S3Store("bucket").open_read("a")


def test_a_service_that_sends_less_than_it_says_is_not_asked_for_ever(service: Stubber) -> None:
    for content in (b"", b"", b"x" * 40, b"", b"", b""):  # three attempts each time that something came
        answer = {"Body": io.BytesIO(content), "ContentRange": "bytes 0-99/100", "ETag": "tag"}
        service.add_response("get_object", answer)
    with pytest.raises(StoreError, match="less of it than it says"):
        S3Store("bucket").open_read("a")


def test_only_old_uploads_are_unfinished(service: Stubber) -> None:
    import datetime

    now = datetime.datetime.now(datetime.UTC)
    uploads = [
        {"Key": "p/new", "UploadId": "1", "Initiated": now},
        {"Key": "p/old", "UploadId": "2", "Initiated": now - datetime.timedelta(days=2)},
    ]
    service.add_response("list_multipart_uploads", {"Uploads": uploads, "IsTruncated": False})
    service.add_response("list_parts", {"Parts": [{"Size": 5}, {"Size": 2}], "IsTruncated": False})
    (left,) = S3Store("bucket", "p").unfinished(24 * 3600)
    assert left == UnfinishedWrite(name="old", size_bytes=7, token="2")
    service.add_response("abort_multipart_upload", {}, {"Bucket": "bucket", "Key": "p/old", "UploadId": "2"})
    S3Store("bucket", "p").discard(left)


def test_objects_that_stay_are_named(service: Stubber) -> None:
    answer = {"Errors": [{"Key": "p/a", "Code": "AccessDenied", "Message": "no"}]}
    service.add_response("delete_objects", answer)
    with pytest.raises(StoreError, match=r"1 objects can't be deleted: p/a: no"):
        S3Store("bucket", "p").delete_many(["a", "b"])


REFUSALS = [
    ("NoSuchBucket", 404, "there is no such bucket", "make it"),
    ("ExpiredToken", 400, "have expired", "sign in again"),
    ("SignatureDoesNotMatch", 403, "doesn't accept these credentials", "AWS_ACCESS_KEY_ID"),
    ("InvalidAccessKeyId", 403, "doesn't accept these credentials", "AWS_ACCESS_KEY_ID"),
    ("AccessDenied", 403, "these credentials may not do that (AccessDenied, PutObject)", "policy"),
    ("403", 403, "these credentials may not do that", "policy"),
    ("RequestTimeTooSkewed", 403, "clock", "set the clock"),
    ("PermanentRedirect", 301, "another region", "s3.region"),
    ("InternalError", 500, "PutObject: InternalError broken", ""),
]


@pytest.mark.parametrize(("code", "status", "why", "way_out"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals_in_words(code: str, status: int, why: str, way_out: str) -> None:
    answer: Any = {
        "Error": {"Code": code, "Message": "broken"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    with pytest.raises(StoreError) as caught, translated("store s3://bucket/p", "key"):
        raise sdk.ClientError(answer, "PutObject")
    assert caught.value.what == "store s3://bucket/p"
    assert why in caught.value.why and way_out in caught.value.way_out


@pytest.mark.parametrize("code", ["404", "NoSuchKey"])
def test_a_missing_object_is_named(code: str) -> None:
    with pytest.raises(ObjectMissingError, match="key"), translated("store", "key"):
        raise sdk.ClientError({"Error": {"Code": code}}, "GetObject")


FAILURES = [
    (sdk.EndpointConnectionError(endpoint_url="http://x"), "can't be reached"),
    (sdk.ConnectTimeoutError(endpoint_url="http://x"), "can't be reached"),
    (sdk.ConnectionClosedError(endpoint_url="http://x"), "can't be reached"),
    (sdk.SSLError(endpoint_url="http://x", error="certificate"), "can't be reached"),
    (sdk.NoCredentialsError(), "no usable credentials"),
    (sdk.ProfileNotFound(profile="work"), "no usable credentials"),
    (sdk.UnauthorizedSSOTokenError(), "no usable credentials"),
    (sdk.ParamValidationError(report="odd"), "ParamValidationError: "),
]


@pytest.mark.parametrize(("error", "why"), FAILURES, ids=[type(row[0]).__name__ for row in FAILURES])
def test_failures_in_words(error: Exception, why: str) -> None:
    with pytest.raises(StoreError) as caught, translated("store"):
        raise error
    assert caught.value.why.startswith(why)


def test_settings_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    before = s3_client.settings()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    after = s3_client.settings()
    assert before != after == s3_client.settings() and "hush-hush" not in str(after)


def test_settings_that_are_no_numbers_are_named() -> None:
    for name in ("SLIPWAY_S3_CONCURRENCY", "SLIPWAY_S3_PART_BYTES", "AWS_MAX_ATTEMPTS"):
        with pytest.raises(StoreError, match="many"):
            s3_client.connect(0, ((name, "many"),))


def test_settings_reach_the_client() -> None:
    settings = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_RETRY_MODE": "adaptive",
        "AWS_MAX_ATTEMPTS": "3",
        "AWS_REGION": "eu-central-1",
        "SLIPWAY_S3_CONCURRENCY": "5",
        "SLIPWAY_S3_PART_BYTES": "1",
    }
    connection = s3_client.connect(0, tuple(settings.items()))
    assert connection is s3_client.connect(0, tuple(settings.items()))
    assert connection is not s3_client.connect(1, tuple(settings.items()))
    assert (connection.concurrency, connection.part_bytes, connection.attempts) == (5, 5 * MEBIBYTE, 3)
    config = connection.client.meta.config
    assert config.retries == {"mode": "adaptive", "total_max_attempts": 3}
    assert config.s3["addressing_style"] == "path"
    assert connection.client.meta.endpoint_url == "http://127.0.0.1:1"
    assert connection.client.meta.region_name == "eu-central-1"


CUT = [
    ("GetObject", 200, {}, 1, True),
    ("GetObject", 206, {"content-length": "5"}, 1, True),
    ("GetObject", 206, {"content-length": "5", "etag": "x"}, 1, False),
    ("ListObjectsV2", 200, {"date": "x"}, 2, True),
    ("ListObjectsV2", 200, {"transfer-encoding": "chunked"}, 1, False),
    ("PutObject", 200, {"content-length": "0"}, 1, False),
    ("DeleteObject", 204, {}, 1, False),
    ("HeadObject", 404, {}, 1, False),
]


@pytest.mark.parametrize(("operation", "status", "headers", "attempt", "again"), CUT)
def test_answers_whose_headers_broke_off_are_asked_for_again(
    operation: str, status: int, headers: dict[str, str], attempt: int, again: bool
) -> None:
    answer = SimpleNamespace(status_code=status, headers=headers, url="http://x")
    pause_s = s3_client._cut_short(3, (answer, {}), SimpleNamespace(name=operation), attempt)
    assert (pause_s is not None) == again
    if again:
        with pytest.raises(sdk.ConnectionClosedError):
            s3_client._cut_short(3, (answer, {}), SimpleNamespace(name=operation), 3)
