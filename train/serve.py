"""`python -m train.serve --source JSON`: one model behind an OpenAI-compatible API, with a page to chat on.

Says one line of JSON on stdout: when it is ready (`url`, `model`, `description`, `context_length`), or why it
will not be (`error`). What is asked goes to stderr, in one line each. Ends at SIGTERM and ^C: what is being
answered has some seconds to be finished.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from artifacts.contract import EXIT_DONE, EXIT_USER_ERROR
from train.stage import StageUserError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from train.serving.queue import AnswerQueue

API_KEY = "SLIPWAY_API_KEY"  # environment; calls of the API must carry it, where it is set
EXIT_INTERRUPTED = 130
_FINISH_S = 10  # for answers on their way when the server is told to end


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    launcher = _own_stdout()
    try:
        listener = bind(options.host, options.port)
        app, facts = _application(options, listener.getsockname()[1])
    except StageUserError as error:
        print(json.dumps({"error": str(error)}), file=launcher, flush=True)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    ready = json.dumps({"url": url(options.host, listener.getsockname()[1]), **facts})
    _serve(app, listener, lambda: print(ready, file=launcher, flush=True))
    return EXIT_DONE


def _own_stdout() -> TextIO:
    """Stdout for that one line; what libraries write there goes to stderr from now on."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.serve", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", help="train.talk.engine.Source, as JSON")
    what.add_argument("--upstream", help="address of another server with this API: the page alone, for it")
    parser.add_argument("--model", default="", help="the model's name at --upstream")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--no-page", dest="page", action="store_false", help="the API alone")
    return parser


def bind(host: str, port: int) -> socket.socket:
    """Take the address before the model is loaded, which may take minutes. Raises StageUserError."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StageUserError(f"{host}:{port} can't be used: {why}", "choose another with --port") from error
    return listener


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds the server."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"


def _application(options: argparse.Namespace, port: int) -> tuple[FastAPI, dict[str, object]]:
    """The application, and what is told of it. Raises StageUserError where the model can't be loaded."""
    from train.serving.app import make_app
    from train.serving.chat.talkers import LocalTalker, RemoteTalker, Talker

    key = os.environ.pop(API_KEY, None) or None  # taken out: no library or child needs it
    queue: AnswerQueue | None = None
    talker: Talker
    if options.upstream:
        talker = RemoteTalker(options.upstream, options.model, key)
        facts: dict[str, object] = {"model": options.model}
    else:
        queue = _open(options.source)
        talker = LocalTalker(queue)
        engine = queue.engine
        facts = {"model": engine.source.name, "description": engine.description}
        facts |= {"context_length": engine.context_length}
    app = make_app(queue, host=options.host, port=port, api_key=key)
    if options.page:
        from train.serving.chat.page import add_page

        add_page(app, talker, api_key=key)
    return app, facts


def _open(source: str) -> AnswerQueue:
    from train.serving.queue import AnswerQueue
    from train.talk.engine import Source
    from train.talk.source import open_engine

    return AnswerQueue(open_engine(Source.from_json(source)))


def _serve(app: FastAPI, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready()

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_FINISH_S
    )
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn once all is closed
        Server(config).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
