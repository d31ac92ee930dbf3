"""A registry that answers look-ups, with a token service of its own where credentials are wanted."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER = base64.b64encode(b"user:right").decode()


@dataclass
class Registry:
    """`images`: digest by `path:tag` and `path@digest`. `guard`: None, "basic" or "bearer"."""

    images: dict[str, str] = field(default_factory=dict)
    guard: str | None = None
    host: str = ""
    asked: list[str] = field(default_factory=list)

    def add(self, path: str, tag: str, digest: str) -> None:
        self.images |= {f"{path}:{tag}": digest, f"{path}@{digest}": digest}


@contextlib.contextmanager
def serve(guard: str | None = None) -> Iterator[Registry]:
    registry = Registry(guard=guard)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            registry.asked.append(self.path)
            if not self._may():
                challenge = 'Basic realm="x"'
                if registry.guard == "bearer":
                    challenge = f'Bearer realm="http://{registry.host}/token",service="s",scope="pull"'
                return self._answer(401, {"WWW-Authenticate": challenge})
            path, _, version = self.path.removeprefix("/v2/").partition("/manifests/")
            digest = registry.images.get(path + ("@" if version.startswith("sha256:") else ":") + version)
            return self._answer(200, {"Docker-Content-Digest": digest}) if digest else self._answer(404)

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != f"Basic {USER}":
                return self._answer(401)
            return self._answer(200, body=b'{"token": "let-me-in"}')

        def _may(self) -> bool:
            wanted = {None: None, "basic": f"Basic {USER}", "bearer": "Bearer let-me-in"}[registry.guard]
            return wanted is None or self.headers.get("Authorization") == wanted

        def _answer(self, code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
            self.send_response(code)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
