"""Who may ask, and what is written down of it: two layers around the whole application.

A server on the loopback is reached by every page that the user's browser shows, under any name that resolves
to 127.0.0.1 (DNS rebinding). So it answers only requests that were made to it by its own address, and not by
another site's page. Elsewhere `Host` is anyone's; a page of another origin is refused there too.
"""

from __future__ import annotations

import hmac
import json
import sys
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from train.serving.errors import ApiError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DEFAULT_PORTS = {"http": 80, "https": 443}

#: The page's own files alone, and no address of anyone's: nothing that a model writes can make the browser
#: fetch, run or send anything. Vue compiles templates in the browser, hence 'unsafe-eval'.
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SECURITY_HEADERS = [
    (b"content-security-policy", _CONTENT_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def is_own_request(host: str, origin: str | None, own_hosts: Iterable[str] | None) -> bool:
    """Whether a request's `Host` and `Origin` are this server's. `own_hosts`: as browsers write them; None:
    not on the loopback, any host."""
    if own_hosts is not None and host.lower() not in own_hosts:
        return False
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):  # "null", a browser extension
        return False
    return host.lower() in _spellings(parts.hostname or "", port, parts.scheme)


def own_hosts(address: str, port: int) -> set[str] | None:
    """The `Host` headers of a server on the loopback; None elsewhere."""
    if address not in LOOPBACK:
        return None
    return set().union(*(_spellings(name, port, "http") for name in LOOPBACK))


def _spellings(name: str, port: int, scheme: str) -> set[str]:
    name = f"[{name}]" if ":" in name else name
    return {f"{name}:{port}", *([name] if _DEFAULT_PORTS.get(scheme) == port else [])}


def is_key(given: str | bytes, key: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode() if isinstance(given, str) else given, key.encode())


class Guard:
    """Refuses what is not this server's own, and calls of the API without its key (where it has one)."""

    def __init__(self, app: ASGIApp, own_hosts: set[str] | None, api_key: str | None) -> None:
        self._app, self._own_hosts, self._api_key = app, own_hosts, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if error := self._refusal(scope, headers):
            return await _refuse(error, scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> ApiError | None:
        if not is_own_request(headers.get("host", ""), headers.get("origin"), self._own_hosts):
            return ApiError(403, "not a request to this server's own address, or not from its own page")
        if self._api_key is None or not scope["path"].startswith("/v1"):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and is_key(given.strip().encode("latin-1"), self._api_key):
            return None
        return ApiError(
            401, "a wrong API key, or none: send `Authorization: Bearer KEY`", code="invalid_api_key"
        )


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()  # "websocket.connect"
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class AccessLog:
    """One line for each call of the API: when, from where, what, how it ended, how long it took, how many
    tokens. Never what was said. The page's files and `/health` (probes) are left out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            return await self._app(scope, receive, send)
        start_s, status = time.monotonic(), "gone"

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            client = (scope.get("client") or ("-",))[0]
            line = f"{client} {scope['method']} {scope['path']} {status} {time.monotonic() - start_s:.2f} s"
            usage = scope.get("state", {}).get("usage")
            tokens = f" {usage.prompt_tokens}+{usage.completion_tokens} tokens" if usage else ""
            write_log(line + tokens)


def write_log(line: str) -> None:
    """To the terminal, on a line of its own whatever a path may hold."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in line)
    print(f"{time.strftime('%H:%M:%S')} {shown}", file=sys.stderr, flush=True)
