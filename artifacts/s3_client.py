"""The connection to an S3 service: settings from the environment, one client per process, errors in words.

The variables are those of the AWS SDK (AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_RETRY_MODE, AWS_MAX_ATTEMPTS) and
SLIPWAY_S3_CONCURRENCY (requests at a time) and SLIPWAY_S3_PART_BYTES (parts of a large object). Credentials
come by the SDK's own chain and are refreshed by it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from artifacts.store import ObjectMissingError, StoreError

MIN_PART_BYTES = 5 * 1024 * 1024  # the service refuses smaller ones, but for the last
_CONNECT_TIMEOUT_S = 10  # the SDK's 60, times the attempts, is too long to learn that an address is wrong
_READ = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_RETRY_MODE",
    "AWS_MAX_ATTEMPTS",
    "SLIPWAY_S3_CONCURRENCY",
    "SLIPWAY_S3_PART_BYTES",
)

_TAGGED = ("GetObject", "UploadPart")  # answers whose ETag is needed
_ABSENT = ("404", "NoSuchKey", "NotFound")
_WRONG_CREDENTIALS = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "UnrecognizedClientException",
)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_ELSEWHERE = (
    "301",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)


@dataclass(frozen=True)
class Connection:
    """A process's way to the service. `pool` carries the requests for parts of large objects, so that there
    are never more than `concurrency` of them, nor more parts than that in memory."""

    client: Any
    pool: ThreadPoolExecutor
    concurrency: int
    part_bytes: int
    attempts: int  # of one request


def settings() -> tuple[tuple[str, str], ...]:
    """The variables that make a connection what it is. Of the SDK's others, which may be secret, only a
    number that changes with them."""
    others = hash(tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))
    return (*((name, os.environ.get(name, "")) for name in _READ), ("others", str(others)))


def connect(pid: int, wanted: tuple[tuple[str, str], ...]) -> Connection:
    """The connection of process `pid` (a child must not use its parent's sockets), made once for equal
    settings: each one asks for its own credentials. Raises StoreError."""
    with _making:
        return _connect(pid, wanted)


@functools.lru_cache(maxsize=8)
def _connect(_pid: int, wanted: tuple[tuple[str, str], ...]) -> Connection:
    import boto3
    from botocore.config import Config

    values = dict(wanted)
    try:
        concurrency = int(values.get("SLIPWAY_S3_CONCURRENCY") or 8)
        part_bytes = int(values.get("SLIPWAY_S3_PART_BYTES") or 16 * 1024 * 1024)
        attempts = int(values.get("AWS_MAX_ATTEMPTS") or 8)
    except ValueError as error:
        raise StoreError("settings of the store", str(error), "see the SLIPWAY_S3_* variables") from error
    endpoint = values.get("AWS_ENDPOINT_URL_S3") or values.get("AWS_ENDPOINT_URL") or None
    region = values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION") or None  # the SDK reads the latter
    s3_options: Any = {
        "addressing_style": "path" if endpoint else "auto",
        # Each body carries a checksum that the service verifies. Without TLS a signature over it would guard
        # writes while reads stay open to the same harm; SHA-256 in the manifest is what guards both.
        "payload_signing_enabled": False,
    }
    retries: Any = {"mode": values.get("AWS_RETRY_MODE") or "standard", "total_max_attempts": attempts}
    config = Config(
        s3=s3_options,
        retries=retries,
        connect_timeout=_CONNECT_TIMEOUT_S,
        tcp_keepalive=True,
        max_pool_connections=4 * concurrency,  # callers' threads beside the pool's
        response_checksum_validation="when_required",  # some services send the whole's with a range
    )
    with translated("the store's settings"):
        client: Any = boto3.session.Session().client("s3", region, endpoint_url=endpoint, config=config)
    client.meta.events.register("needs-retry.s3", functools.partial(_cut_short, attempts))
    return Connection(
        client=client,
        pool=ThreadPoolExecutor(concurrency, thread_name_prefix="s3"),
        concurrency=concurrency,
        part_bytes=max(part_bytes, MIN_PART_BYTES),
        attempts=attempts,
    )


def _cut_short(most_attempts: int, response: Any, operation: Any, attempts: int, **_: Any) -> float | None:
    """The pause before an answer whose headers broke off is asked for again: Python's HTTP client takes it
    for a whole one, and an object or a list would seem empty. Raises ConnectionClosedError after the last."""
    from botocore.exceptions import ConnectionClosedError

    if response is None or response[0].status_code not in (200, 206):
        return None
    headers = response[0].headers
    has_length = "content-length" in headers or "transfer-encoding" in headers
    if has_length and (operation.name not in _TAGGED or "etag" in headers):
        return None
    if attempts >= most_attempts:
        raise ConnectionClosedError(endpoint_url=response[0].url)
    return 0.1 * 2.0**attempts


_making = threading.Lock()


def _after_fork() -> None:
    global _making
    _making = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


def error_code(error: Exception) -> str:
    """The service's own code of a ClientError (`NoSuchKey`, `412`), else nothing."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def translated(what: str, key: str = "") -> Iterator[None]:
    """Errors of the SDK as ObjectMissingError(key) or StoreError about `what`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error_code(error) in _ABSENT:
            raise ObjectMissingError(key) from error
        raise _of_refusal(what, error) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _of_failure(what, error) from error


def _of_refusal(what: str, error: Any) -> StoreError:
    """What the service said no to."""
    code, status = error_code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return StoreError(
            what, "there is no such bucket", "make it, or correct `store` in the cluster profile"
        )
    if code in _EXPIRED:
        return StoreError(
            what, "the credentials have expired", "sign in again (`aws sso login`, new AWS_* keys)"
        )
    if code in _WRONG_CREDENTIALS:
        return StoreError(
            what, f"the service doesn't accept these credentials ({code})", _CREDENTIALS_WAY_OUT
        )
    if code == "RequestTimeTooSkewed":
        return StoreError(what, "this machine's clock differs from the service's", "set the clock")
    if code in _ELSEWHERE:
        return StoreError(
            what, "the bucket is in another region", "correct `s3.region` in the cluster profile"
        )
    if status == 403:
        why = f"these credentials may not do that ({code}, {error.operation_name})"
        return StoreError(what, why, "allow it in the bucket's policy, or use other credentials")
    message = error.response.get("Error", {}).get("Message", "")
    return StoreError(what, f"{error.operation_name}: {code} {message}".strip())


def _of_failure(what: str, error: Exception) -> StoreError:
    """What never came to an answer."""
    from botocore import exceptions as sdk

    no_credentials = (
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.CredentialRetrievalError,
        sdk.NoAuthTokenError,
        sdk.TokenRetrievalError,
        sdk.SSOError,
        sdk.LoginError,
        sdk.ProfileNotFound,
    )
    if isinstance(error, no_credentials):
        return StoreError(what, f"no usable credentials ({error})", _CREDENTIALS_WAY_OUT)
    if isinstance(error, (sdk.ConnectionError, sdk.HTTPClientError)):
        way_out = "is the address (`s3.endpoint`) right, and does a proxy or VPN stand between?"
        return StoreError(what, f"can't be reached ({error})", way_out)
    return StoreError(what, f"{type(error).__name__}: {error}")


_CREDENTIALS_WAY_OUT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or sign in (`aws sso login`)"
)
