"""The API over an engine without a model: OpenAI's objects, errors and streams, the queue, who may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.train.serving_fakes import EchoEngine
from train.serve import bind, url
from train.serving.app import make_app
from train.serving.chat.markdown import answer_html, plain_html
from train.serving.errors import ApiError
from train.serving.guard import is_own_request, own_hosts
from train.serving.queue import AnswerQueue
from train.serving.requests import ChatRequest, CompletionRequest, read
from train.serving.tools import CallReader
from train.stage import StageUserError
from train.talk.engine import Sampling

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def hello(**fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": "one two three"}], **fields}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[TestClient, EchoEngine]]:
    engine = EchoEngine()
    with TestClient(make_app(AnswerQueue(engine), port=80), base_url="http://127.0.0.1") as client:
        yield client, engine
    assert engine.closed.is_set()


@pytest.fixture
def client(served: tuple[TestClient, EchoEngine]) -> TestClient:
    return served[0]


def stream_of(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return [json.loads(each) for each in events]


def test_answer(client: TestClient) -> None:
    answer = client.post(CHAT, json=hello()).json()
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "one two three", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 13, "completion_tokens": 4, "total_tokens": 17}
    assert (answer["object"], answer["model"]) == ("chat.completion", "echo")


def test_stream(client: TestClient) -> None:
    events = stream_of(client, CHAT, hello(stream_options={"include_usage": True}, max_tokens=2))
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "one"}, {"content": " two"}, {}]
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert all(event["usage"] is None for event in events[:-1])
    assert (events[-1]["choices"], events[-1]["usage"]["completion_tokens"]) == ([], 2)
    assert len({event["id"] for event in events}) == 1
    assert "usage" not in stream_of(client, CHAT, hello())[-1]


def test_completions(client: TestClient, served: tuple[TestClient, EchoEngine]) -> None:
    answer = client.post(TEXT, json={"prompt": ["a b", "c"], "n": 2, "seed": 7}).json()
    assert [(each["index"], each["text"]) for each in answer["choices"]] == [
        *[(0, "a b"), (1, "a b"), (2, "c"), (3, "c")]
    ]
    assert answer["usage"]["prompt_tokens"] == 4  # each prompt once
    asked = served[1].samplings[-4:]
    assert [(each.seed, each.max_new_tokens) for each in asked] == [(7, 16), (8, 16), (7, 16), (8, 16)]
    events = stream_of(client, TEXT, {"prompt": "a b", "max_tokens": 1})
    assert [each["choices"][0]["text"] for each in events] == ["a", ""]


def test_models_and_health(client: TestClient) -> None:
    assert client.get("/v1/models").json()["data"][0]["id"] == "echo"
    assert client.get("/v1/models/echo").json()["max_model_len"] == 4000
    assert client.get("/health").json() == {"status": "ok", "model": "echo", "waiting": 0}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (CHAT, b"{", 400, None),
        (CHAT, b"[]", 400, None),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {}, 400, "messages"),
        (CHAT, hello(model="gpt-4"), 404, "model"),
        (CHAT, hello(temperature=3), 400, "temperature"),
        (CHAT, hello(temperature="warm"), 400, "temperature"),
        (CHAT, hello(max_tokens=0), 400, "max_tokens"),
        (CHAT, hello(max_tokens=5000), 400, "messages"),
        (CHAT, hello(n=99), 400, "n"),
        (CHAT, hello(stop=[1]), 400, "stop"),
        (CHAT, hello(logprobs=True), 400, "logprobs"),
        (CHAT, hello(response_format={"type": "json_object"}), 400, "response_format"),
        (CHAT, hello(tool_choice="required"), 400, "tool_choice"),
        (CHAT, hello(tools=[{"type": "retrieval", "function": {}}]), 400, "tools"),
        (CHAT, hello(stream_options={"include_usage": True}), 400, "stream_options"),
        (CHAT, {"messages": [{"role": "poet", "content": ""}]}, 400, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None),
        (CHAT, {"messages": [{"role": "user", "content": "refused"}]}, 400, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "broken"}]}, 500, None),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 4000}]}, 400, "messages"),
        (TEXT, {"prompt": [1, 2]}, 400, "prompt"),
        (TEXT, {"prompt": "a", "echo": True}, 400, "echo"),
        ("/v1/embeddings", {}, 404, None),
        ("/v1/models", {}, 405, None),
    ],
)
def test_errors(client: TestClient, path: str, body: Any, status: int, param: str | None) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(path, content=content)
    error = answer.json()["error"]
    assert answer.status_code == status and error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or error["param"] == param


def test_an_error_ends_a_stream(client: TestClient) -> None:
    events = stream_of(client, CHAT, {"messages": [{"role": "user", "content": "broken"}]})
    assert events[-1]["error"]["type"] == "server_error"


def test_a_body_that_is_too_long(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.serving.app.MAX_BODY_BYTES", 10)
    assert client.post(CHAT, json=hello()).status_code == 413


def test_sampling() -> None:
    sampling = read(ChatRequest, json.dumps(hello()).encode()).sampling(None, 0)
    assert sampling == Sampling(temperature=1.0)  # OpenAI's default
    full = hello(temperature=0, top_p=0.5, top_k=-1, seed=1, stop="x", max_tokens=9, max_completion_tokens=3)
    request = read(ChatRequest, json.dumps({**full, "user": "me", "logprobs": False}).encode())
    assert request.max_new_tokens == 3
    assert request.sampling(3, 1) == Sampling(max_new_tokens=3, temperature=0, top_p=0.5, seed=2, stop=("x",))
    assert read(CompletionRequest, b'{"prompt": "a"}').max_new_tokens == 16


def test_conversations_take_the_shape_of_records() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"in": "Oslo"}'}}
    request = read(
        ChatRequest,
        json.dumps(
            {
                "messages": [
                    {"role": "developer", "content": "Be brief."},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    },
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "1", "content": "rain"},
                ],
                "tools": [WEATHER],
            }
        ).encode(),
    )
    system, user, assistant, tool = request.conversation()
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == "ab" and tool == {"role": "tool", "content": "rain"}
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"in": "Oslo"}
    assert request.declared_tools() == [WEATHER]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_tool_calls(step: int) -> None:
    text = (
        'Let me see <b. <tool_call>\n{"name": "weather", "arguments": {"in": "Oslo"}}\n</tool_call>'
        '<tool_call>{"name": "unknown"}</tool_call><tool_call>{"na'
    )
    reader, said, calls = CallReader([WEATHER]), "", []
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    for piece in [*pieces, ""]:
        more, found = reader.feed(piece, last=piece == "")
        said, calls = said + more, calls + found
    assert said == 'Let me see <b. <tool_call>{"name": "unknown"}</tool_call><tool_call>{"na'
    assert [call["function"] for call in calls] == [{"name": "weather", "arguments": '{"in": "Oslo"}'}]
    assert CallReader(None).feed(text) == (text, [])


def test_tool_calls_in_answers() -> None:
    words = ["Wait.", '<tool_call>{"name": "weather",', '"arguments": {}}</tool_call>']
    with TestClient(
        make_app(AnswerQueue(EchoEngine(words=words)), port=80), base_url="http://localhost"
    ) as client:
        choice = client.post(CHAT, json=hello(tools=[WEATHER])).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "Wait. "
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
        events = stream_of(client, CHAT, hello(tools=[WEATHER]))
        assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert any("tool_calls" in event["choices"][0]["delta"] for event in events)
        plain = client.post(CHAT, json=hello(tools=[WEATHER], tool_choice="none")).json()["choices"][0]
        assert "<tool_call>" in plain["message"]["content"] and plain["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("127.0.0.1:8000", None, True),
        ("localhost:8000", "http://localhost:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("evil.example:8000", None, False),  # a name that resolves to the loopback
        ("localhost:8000", "http://evil.example", False),
        ("localhost:8000", "http://localhost:9000", False),
        ("localhost:8000", "null", False),
        ("localhost", None, False),
    ],
)
def test_own_requests_on_the_loopback(host: str, origin: str | None, own: bool) -> None:
    assert is_own_request(host, origin, own_hosts("127.0.0.1", 8000)) is own


def test_own_requests_elsewhere() -> None:
    assert own_hosts("0.0.0.0", 8000) is None
    assert is_own_request("gpu-box:8000", "http://gpu-box:8000", None)
    assert is_own_request("chat.example", "https://chat.example", None)  # behind a proxy with TLS
    assert not is_own_request("gpu-box:8000", "http://evil.example", None)


def test_foreign_pages_and_keys(capfd: pytest.CaptureFixture[str]) -> None:
    app = make_app(AnswerQueue(EchoEngine()), port=80, api_key="s3cret-key")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": b"Bearer wr\xf6ng"}).status_code == 401
        right = {"Authorization": "Bearer s3cret-key"}
        assert client.post(CHAT, json=hello(), headers=right).status_code == 200
        assert client.post(CHAT, json=hello(), headers=right | {"Origin": "http://a.b"}).status_code == 403
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403
        assert "default-src 'none'" in client.get("/health").headers["content-security-policy"]
    log = capfd.readouterr().err
    assert "POST /v1/chat/completions 200" in log and "13+4 tokens" in log
    assert "three" not in log and "s3cret" not in log


def test_the_queue_is_fair_bounded_and_left() -> None:
    async def scene() -> None:
        engine = EchoEngine(pause_s=0.01)
        queue = AnswerQueue(engine, limit=3)
        prompt = engine.encode_text("a b c d e f g h i j")
        first, second, third = queue.submit([(prompt, Sampling(max_new_tokens=n)) for n in (10, 1, 1)])
        with pytest.raises(ApiError) as refused:
            queue.submit([(prompt, Sampling())])
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
        with first:
            async for _ in first:
                break
        second.leave()  # before its turn
        assert queue.length == 1
        assert [piece.text async for piece in third] == ["a", ""]
        assert engine.closed_early == 1 and engine.made <= 5
        assert len(engine.samplings) == 2  # the second was never begun
        queue.close()
        with pytest.raises(ApiError):
            queue.submit([(prompt, Sampling())])

    asyncio.run(scene())


def test_closing_tells_those_who_wait() -> None:
    async def scene() -> None:
        engine = EchoEngine(pause_s=0.01)
        queue = AnswerQueue(engine)
        jobs = queue.submit([(engine.encode_text("a " * 50), Sampling())] * 2)
        await anext(aiter(jobs[0]))
        await asyncio.to_thread(queue.close)
        with pytest.raises(ApiError):
            async for _ in jobs[1]:
                pass
        assert engine.closed.is_set() and engine.made < 50

    asyncio.run(scene())


def test_answers_as_html() -> None:
    shown = answer_html("<b>x</b> ![p](http://a/b) [j](javascript:x) **bold**")
    assert "<b>" not in shown and "<img" not in shown and 'href="javascript' not in shown
    assert "&lt;b&gt;x&lt;/b&gt;" in shown and "<strong>bold</strong>" in shown
    assert plain_html("a <b>\nc") == "a &lt;b&gt;<br>c"


@pytest.mark.parametrize(
    ("text", "complete", "title", "answer"),
    [
        ("<think>why <i>", False, "Thinking", ""),
        ("\n<think>\nwhy <i>\n</think>\n\nBecause.", True, "Thoughts", "<p>Because.</p>"),
        ("<think>\n\n</think>\n\nBecause.", True, "", "<p>Because.</p>"),
        ("no <think>", True, "", "<p>no &lt;think&gt;</p>"),
    ],
)
def test_thinking_is_folded_away(text: str, complete: bool, title: str, answer: str) -> None:
    shown = answer_html(text, complete=complete)
    assert ("<details" in shown) is bool(title) and title in shown
    assert shown.rpartition("</details>")[2].strip() == answer
    assert "<i>" not in shown


def test_addresses() -> None:
    assert [url(host, 80) for host in ("127.0.0.1", "0.0.0.0", "::", "::1", "gpu-box")] == [
        *["http://127.0.0.1:80", "http://127.0.0.1:80", "http://[::1]:80", "http://[::1]:80"],
        "http://gpu-box:80",
    ]
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(StageUserError, match="address already in use; choose another with --port"):
            bind("127.0.0.1", taken.getsockname()[1])
