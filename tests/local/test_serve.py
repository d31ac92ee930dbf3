"""`slipway serve` itself, on small real models of every form, asked by the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.local import chat_page, serving_models
from tests.local.chromium import Browser, needs_chromium, wait_until
from train.stage import StageUserError
from train.talk.engine import Sampling, Source
from train.talk.source import open_engine

pytestmark = pytest.mark.products

KEY = "s3cret-key"  # of the adapter's server
QUESTION: list[Any] = [{"role": "user", "content": "What is the harbour?"}]
START_S = 240


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    api: str
    log: Path

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.api, api_key=KEY, max_retries=0, timeout=120, **options)

    @property
    def url(self) -> str:
        return self.api.removesuffix("/v1")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    root = tmp_path_factory.mktemp("models")
    base = serving_models.write_model(root / "tiny")
    made = {
        "tiny": Source(name="tiny", folder=base),
        "adapter": Source(
            name="adapter", folder=base, adapter=serving_models.write_adapter(base, root / "adapter")
        ),
        "gptq": Source(name="gptq", folder=serving_models.write_gptq_model(base, root / "gptq")),
    }
    with contextlib.suppress(StageUserError):  # llama.cpp is not installed
        made["letters"] = Source(name="letters", gguf=serving_models.write_gguf(base, root / "letters.gguf"))
    return made


class Servers:
    """Of every model one, started when it is first asked for."""

    def __init__(self, models: dict[str, Source], logs: Path) -> None:
        self._models, self._logs = models, logs
        self.started: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        if name not in self._models:
            pytest.skip("llama.cpp is not installed")
        if name not in self.started:
            source = self._models[name]
            key = {"SLIPWAY_API_KEY": KEY} if name == "adapter" else {}
            options = [] if name == "tiny" else ["--no-page"]
            what = source.gguf or source.adapter or source.folder
            self.started[name] = start(what, *options, log=self._logs / name, **key)
        return self.started[name]


@pytest.fixture(scope="module")
def servers(models: dict[str, Source], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(models, tmp_path_factory.mktemp("logs"))
    yield made
    for server in made.started.values():
        if server.process.poll() is None:
            assert server.end(signal.SIGTERM) == 0
        assert "Traceback" not in server.log.read_text()


def start(what: Path | None, *options: str, log: Path, **variables: str) -> Server:
    """The command, once it says that it is ready."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    command = [sys.executable, "-m", "launcher.cli", "serve", str(what), "--port=0", *options]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment | variables
        )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"API +(\S+)", line):
            return Server(process, found[1], log)
    raise AssertionError(log.read_text())


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers["tiny"]


class Expected:
    """What the engine of each model answers, greedily."""

    def __init__(self, models: dict[str, Source]) -> None:
        self._models = models
        self._answers: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._answers:
            self._answers[name] = answer(self._models[name], QUESTION, 24)
        return self._answers[name]


@pytest.fixture(scope="module")
def expected(models: dict[str, Source]) -> Expected:
    return Expected(models)


def answer(source: Source, messages: list[Any], tokens: int) -> str:
    engine = open_engine(source)
    try:
        prompt = engine.encode_chat(messages)
        sampling = Sampling(max_new_tokens=tokens)
        return "".join(piece.text for piece in engine.stream(prompt, sampling))
    finally:
        engine.close()


def ask(client: openai.OpenAI, **options: Any) -> Any:
    options = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 24} | options
    return client.chat.completions.create(**options)


@pytest.mark.parametrize("name", ["tiny", "adapter", "gptq", "letters"])
def test_answers_are_the_engines(servers: Servers, expected: Expected, name: str) -> None:
    client = servers[name].client()
    assert [model.id for model in client.models.list()] == [name]
    whole = ask(client, model=name)
    assert whole.choices[0].message.content == expected[name]
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 24)
    chunks = list(ask(client, model=name, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == expected[name]
    assert chunks[-1].usage == whole.usage and len(chunks) > 20
    text = client.completions.create(model=name, prompt="The harbour", max_tokens=5, temperature=0)
    assert (len(text.choices[0].text), text.usage.completion_tokens) == (5, 5)


def test_an_adapter_changes_the_answers(expected: Expected) -> None:
    assert expected["adapter"] != expected["tiny"]


def test_stop_and_seed(server: Server, expected: Expected) -> None:
    client, whole = server.client(), expected["tiny"]
    stop = whole[9:11]
    stopped = ask(client, stop=[stop, "never"])
    assert stopped.choices[0].message.content == whole[: whole.find(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    warm = [ask(client, temperature=1.5, seed=seed, n=2) for seed in (1, 1, 3)]
    first, again, other = ([choice.message.content for choice in each.choices] for each in warm)
    assert first == again and first[0] != first[1] and first != other


def test_errors(server: Server, servers: Servers) -> None:
    client = server.client()
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4o'"):
        ask(client, model="gpt-4o")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=[{"role": "user", "content": "word " * 200}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(client, temperature=-1)
    protected = servers["adapter"]
    with pytest.raises(openai.AuthenticationError):
        ask(protected.client().with_options(api_key="wrong"), model="adapter")
    assert KEY not in protected.log.read_text()


def test_many_clients_at_once(server: Server, expected: Expected) -> None:
    async def crowd() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.api, api_key="-", max_retries=0, timeout=240) as client:

            async def one(streamed: bool) -> str:
                options: Any = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 6}
                made: Any = await client.chat.completions.create(stream=streamed, **options)
                if not streamed:
                    return made.choices[0].message.content
                return "".join([chunk.choices[0].delta.content or "" async for chunk in made])

            return await asyncio.gather(*(one(number % 2 == 0) for number in range(32)))

    assert asyncio.run(crowd()) == [expected["tiny"][:6]] * 32


@pytest.mark.parametrize("streamed", [True, False])
def test_who_leaves_frees_the_queue(server: Server, expected: Expected, streamed: bool) -> None:
    """16 long answers take many seconds: they would be in the way of the next one."""
    long = {"n": 16, "max_tokens": 450}
    if streamed:
        with ask(server.client(), stream=True, **long) as chunks:
            next(iter(chunks))
            assert waiting(server) == 16
    else:
        with pytest.raises(openai.APITimeoutError):
            ask(server.client().with_options(timeout=0.5), **long)
    wait_until(lambda: waiting(server) == 0, timeout_s=10)
    assert ask(server.client()).choices[0].message.content == expected["tiny"]
    *_, left, _ = (line for line in server.log.read_text().splitlines() if "chat/completions" in line)
    made = re.search(r"\+(\d+) tokens", left)
    assert made and int(made[1]) < 16 * 450 / 2


def waiting(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/health", timeout=30) as answer:
        return json.load(answer)["waiting"]


def test_the_log_holds_no_words(server: Server, expected: Expected) -> None:
    log = server.log.read_text()
    assert "POST /v1/chat/completions 200" in log
    assert "harbour" not in log and expected["tiny"] not in log


@needs_chromium
def test_the_page_and_one_for_another_server(
    server: Server, models: dict[str, Source], tmp_path: Path
) -> None:
    """Its own, and a page in front of it as it stands in front of vLLM."""
    asked = [{"role": "user", "content": "What is the harbour?"}]
    said = answer(models["tiny"], asked, 40)
    beside = [sys.executable, "-m", "train.serve", f"--upstream={server.url}", "--model=tiny", "--port=0"]
    other = subprocess.Popen(beside, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        told = re.search(r'"url": "([^"]+)"', other.stdout.readline())
        assert told
        with Browser(tmp_path) as browser:
            for url in (server.url, told[1]):
                chat_page.open_chat(browser, url)
                chat_page.set_length(browser, 40)
                chat_page.ask(browser, asked[0]["content"])
                browser.wait_for(".facts", "40 tokens")
                assert browser.text(".answer") == said.strip()
            assert browser.complaints == []
        other.terminate()
        assert other.wait(30) in (0, -signal.SIGTERM)
    finally:
        other.kill()
        other.wait()


def test_an_address_that_is_taken(server: Server, models: dict[str, Source]) -> None:
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "launcher.cli", "serve", str(models["tiny"].folder), f"--port={port}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
    assert ended.returncode == 2
    assert "can't be used: address already in use; choose another with --port" in ended.stderr


def test_it_ends_at_once_when_asked(servers: Servers) -> None:
    """^C reaches the whole foreground group; here the launcher alone gets a signal and hands it on."""
    server = servers["gptq"]
    start_s = time.monotonic()
    assert server.end(signal.SIGINT) == 0
    assert time.monotonic() - start_s < 10
    with pytest.raises(openai.APIConnectionError):
        server.client().models.list()
