"""`python -m tests.local.echo_server [KEY]`: API and page over an engine that repeats what it is told, at a
free port, which it prints."""

from __future__ import annotations

import socket
import sys

import uvicorn

from tests.train.serving_fakes import EchoEngine
from train.serving.app import make_app
from train.serving.chat.page import add_page
from train.serving.chat.talkers import LocalTalker
from train.serving.queue import AnswerQueue


def main() -> None:
    key = sys.argv[1] if len(sys.argv) > 1 else None
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    queue = AnswerQueue(EchoEngine(pause_s=0.03))
    app = make_app(queue, port=port, api_key=key)
    add_page(app, LocalTalker(queue), api_key=key)
    print(port, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
