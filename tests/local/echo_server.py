"""`python -m tests.local.echo_server`: API and page over an engine that repeats what it is told. Prints its
port.

Takes what is asked of `vllm serve`, and can stand in for it.
"""

from __future__ import annotations

import argparse
import os
import socket

import uvicorn

from tests.train.serving_fakes import EchoEngine
from train.serving.app import make_app
from train.serving.chat.page import add_page
from train.serving.chat.talkers import LocalTalker
from train.serving.queue import AnswerQueue


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=os.environ.get("VLLM_API_KEY"))
    options, _ = parser.parse_known_args()
    listener = socket.create_server(("127.0.0.1", options.port))
    port = listener.getsockname()[1]
    queue = AnswerQueue(EchoEngine(pause_s=0.03))
    app = make_app(queue, port=port, api_key=options.key)
    add_page(app, LocalTalker(queue), api_key=options.key)
    print(port, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
