"""Serving speed: time to first token, tokens/s of one client, requests/s and tokens/s of several at once.

    python bench/serve.py [--hidden N] [--layers N] [--tokens N] [--clients N]

Systems, one after another with the same weights, prompts and length: `slipway serve`, `transformers serve` in
the same precision, and, where its packages are installed (`pip install llama-cpp-python[server]`), ours and
`llama_cpp.server` with the GGUF file. The model is random and never ends an answer by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

START_S = 300
PROMPT = "The harbour master asks when the tide will turn and who is to haul the boats up the slipway. " * 4


@dataclass(frozen=True)
class Answer:
    first_s: float  # from the request to the first text
    whole_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--rounds", type=int, default=5, help="answers of one client")
    parser.add_argument("--clients", type=int, default=4, help="at once, two answers each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", options.hidden, options.layers)
        size = (model / "model.safetensors").stat().st_size
        print(f"model of {size / 1e6:.0f} MB, answers of {options.tokens} tokens, {os.cpu_count()} cores")
        print(f"{'':32}{'start s':>9}{'first ms':>10}{'tokens/s':>10}{'requests/s':>12}{'tokens/s':>10}")
        for label, command in systems(model, Path(folder)):
            show(label, command, options)


def make_model(folder: Path, hidden: int, layers: int) -> Path:
    from tests.local.serving_models import write_model

    return write_model(folder, hidden=hidden, layers=layers, context=4096)


def systems(model: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Labels, and commands that lack a port alone."""
    from train.talk.transformers_engine import fast_precision

    dtype = {"bf16": "bfloat16", "fp32": "float32"}[fast_precision("cpu")]
    ours = [sys.executable, "-m", "launcher.cli", "serve"]
    yield f"slipway serve, {dtype}", [*ours, str(model), "--engine=transformers", "--port"]
    peer = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), f"--dtype={dtype}"]
    yield f"transformers serve, {dtype}", [*peer, "--device=cpu", "--log-level=error", "--port"]
    if importlib.util.find_spec("llama_cpp_converter") is None:
        return
    from tests.local.serving_models import write_gguf

    file = str(write_gguf(model, folder / "model.gguf"))
    yield "slipway serve, GGUF f16", [*ours, file, "--port"]
    if importlib.util.find_spec("sse_starlette") is not None:
        peer = [sys.executable, "-m", "llama_cpp.server", "--model", file, "--n_ctx", "4096"]
        yield "llama_cpp.server, GGUF f16", [*peer, "--port"]


def show(label: str, command: Sequence[str], options: argparse.Namespace) -> None:
    with server(command) as (url, start_s):
        ask(url, options.tokens, "warm up")
        alone = [ask(url, options.tokens, f"{number} {PROMPT}") for number in range(options.rounds)]
        count = 2 * options.clients
        begin_s = time.monotonic()
        with ThreadPoolExecutor(options.clients) as pool:
            work = [pool.submit(ask, url, options.tokens, f"{-1 - n} {PROMPT}") for n in range(count)]
            _ = [each.result() for each in work]
        together_s = time.monotonic() - begin_s
    first_ms = 1000 * statistics.median(answer.first_s for answer in alone)
    rate = statistics.median((options.tokens - 1) / (answer.whole_s - answer.first_s) for answer in alone)
    print(
        f"{label:<32}{start_s:>9.1f}{first_ms:>10.0f}{rate:>10.0f}"
        f"{count / together_s:>12.2f}{count * options.tokens / together_s:>10.0f}"
    )


@contextlib.contextmanager
def server(command: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Its address once it answers, and how long that took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, begin_s = f"http://127.0.0.1:{port}", time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, str(port)], env=environment, stdout=log, stderr=log)
        try:
            while not answers(url):
                if process.poll() is not None or time.monotonic() - begin_s > START_S:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)} did not start:\n{log.read()[-2000:]}")
                time.sleep(0.1)
            yield url, time.monotonic() - begin_s
        finally:
            process.terminate()
            process.wait()


def answers(url: str) -> bool:
    """llama_cpp.server has no `/health`; of transformers' `/v1/models` only the hub's cache is a part."""
    try:
        return any(
            httpx.get(f"{url}{path}", timeout=1).status_code == 200 for path in ("/health", "/v1/models")
        )
    except httpx.HTTPError:
        return False


def ask(url: str, tokens: int, text: str) -> Answer:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    begin_s, first_s = time.monotonic(), 0.0
    address = f"{url}/v1/chat/completions"
    body |= {"temperature": 0, "stream": True}
    with httpx.stream("POST", address, json=body, timeout=600) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line.removeprefix("data: ")).get("choices") or [{"delta": {}}]
            if choices[0]["delta"].get("content") and not first_s:
                first_s = time.monotonic() - begin_s
    return Answer(first_s, time.monotonic() - begin_s)


if __name__ == "__main__":
    main()
