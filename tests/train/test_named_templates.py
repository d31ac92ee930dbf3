"""Each named template against transformers' own rendering, and goldens of what is learnt."""

from __future__ import annotations

import functools
import json
import os
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from artifacts.contract import Reading
from artifacts.formats import RecordReader
from tests.train.backends import VARIABLES, byte_level_backend, learnt_texts, reference_ids
from tests.train.chat_templates import (
    CONVERSATIONS,
    REASONING_CONVERSATION,
    TOOL_CONVERSATION,
    TOOLS,
    chat,
)
from train.data.named_templates import NAMED, from_pieces
from train.data.tokenize import ChatTokenizer, Document

GOLDEN = Path(__file__).parents[1] / "golden" / "templates.json"
PIECES = {
    f"{role}_{side}": f"<{role}>" if side == "prefix" else "</s>\n"
    for role in ("system", "user", "assistant", "observation")
    for side in ("prefix", "suffix")
}
TEMPLATES = NAMED | {"pieces": from_pieces(PIECES)}
RECORDS = {title: {"messages": messages} for title, messages in CONVERSATIONS.items() if title != "long"}
RECORDS |= {
    f"{turns} turns": {"messages": chat(*(f"{'qa'[i % 2]}{i} 말 字" for i in range(2 * turns)))}
    for turns in range(1, 20)
}
RECORDS |= {
    "tools": {"messages": TOOL_CONVERSATION, "tools": TOOLS},
    "reasoning": {"messages": REASONING_CONVERSATION},
}
#: A record of each format as it comes; `artifacts.formats` reads it.
RAW = {
    "messages": {"messages": chat("1?", "하나", system="답")},
    "conversations": {
        "conversations": [
            {"from": "human", "value": "天气？"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "北京"}}'},
            {"from": "observation", "value": "晴"},
            {"from": "gpt", "value": "晴天 ☀️"},
        ]
    },
    "alpaca": {"instruction": "Add", "input": "1 2", "output": "3", "history": [["hi", "ho"]]},
    "prompt_response": {"prompt": "发热？", "response": "多喝水。"},
    "text": {"text": "Once <|im_end|> upon."},
    "turns": {"text": "### Human: Hola### Assistant: ¡Hola!### Human: Adiós### Assistant: Chao"},
    "dialogue": {"id": "1", "dialogue": "A: hi\r\nB: ho", "summary": "They greet."},
    "input_target": {"input": "He go .", "target": "He goes ."},
    "jfleg": {"sentence": "I has it .", "corrections": ["I have it . ", "", "I've got it ."]},
}
IN_GOLDEN = ("plain", "system", "empty system", "chinese", "korean", "emoji", "tools", "reasoning")


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    return byte_level_backend()


@functools.cache
def tokenizer(backend: Tokenizer, name: str, **options) -> ChatTokenizer:
    return ChatTokenizer(backend, TEMPLATES[name].jinja(), VARIABLES, **options)


def encode(chat_tokenizer: ChatTokenizer, record) -> Document:
    (document,) = chat_tokenizer.encode([record])
    assert isinstance(document, Document), document
    return document


@pytest.mark.parametrize("name", TEMPLATES)
def test_tokens_are_those_of_apply_chat_template(backend, name):
    mine = tokenizer(backend, name)
    for title, record in RECORDS.items():
        expected = reference_ids(
            backend, TEMPLATES[name].jinja(), record["messages"], tools=record.get("tools")
        )
        if name == "chatglm":
            expected = [*expected, backend.token_to_id("</s>")]  # nothing else ends the last turn
        assert encode(mine, record).input_ids.tolist() == expected, title


def test_what_is_learnt_is_golden(backend):
    """UPDATE_GOLDEN=1 writes it anew."""
    got = {
        name: {
            title: learnt_texts(backend, encode(tokenizer(backend, name), RECORDS[title]))
            for title in IN_GOLDEN
        }
        | {"rendered": tokenizer(backend, name).template.render(TOOL_CONVERSATION[:6], TOOLS)}
        for name in TEMPLATES
    }
    compare_golden(GOLDEN, got)


def compare_golden(path: Path, got) -> None:
    text = json.dumps(got, ensure_ascii=False, indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("format", RAW)
def test_each_format_in_each_template(backend, format):
    records = RecordReader(format, Reading(fix_spacing=format == "jfleg")).read(RAW[format])
    assert records
    got = {}
    for name in TEMPLATES:
        mine = tokenizer(backend, name)
        documents = [encode(mine, record) for record in records]
        got[name] = [learnt_texts(backend, document) for document in documents]
        for record, document in zip(records, documents, strict=True):
            if "text" in record:
                continue
            expected = reference_ids(
                backend, TEMPLATES[name].jinja(), record["messages"], tools=record.get("tools")
            )
            assert document.input_ids.tolist()[: len(expected)] == expected, name
    compare_golden(GOLDEN.with_name("templates-formats") / f"{format}.json", got)


def conversation(chance: random.Random) -> tuple[list[dict], list[str], list[str]]:
    """Turns of words that occur nowhere else; the assistant's words, and the others'."""
    count = iter(range(1000))
    said: dict[bool, list[str]] = {True: [], False: []}

    def words(learnt: bool) -> str:
        text = " ".join(f"w{next(count)}w" for _ in range(chance.randint(1, 4)))
        said[learnt] += text.split()
        return text

    messages = [{"role": "system", "content": words(False)}] if chance.random() < 0.5 else []
    for _ in range(chance.randint(1, 6)):
        messages.append({"role": "user", "content": words(False)})
        if chance.random() < 0.3:
            calls = [{"function": {"name": words(True), "arguments": {"x": words(True)}}}]
            text = words(True) if chance.random() < 0.5 else ""
            messages.append({"role": "assistant", "content": text, "tool_calls": calls})
            messages.append({"role": "tool", "content": words(False)})
        learnt = chance.random() < 0.8
        answer = {"role": "assistant", "content": words(learnt)}
        messages.append(answer if learnt else answer | {"train": False})
    return messages, said[True], said[False]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_assistants_words_are_learnt_and_no_others(backend, name):
    mine = tokenizer(backend, name)
    end = mine.template.end_of_turn.strip()
    for seed in range(20):
        messages, learnt, others = conversation(random.Random(seed))
        runs = learnt_texts(backend, encode(mine, {"messages": messages}))
        words = " ".join(runs).replace('"', " ")
        assert all(word in words for word in learnt), seed
        assert not any(word in words for word in others), seed
        turns = [message for message in messages if message["role"] == "assistant"]
        assert len(runs) == sum(message.get("train", True) for message in turns), seed
        if end:
            assert all(run.endswith(end) for run in runs), seed


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_bos(backend, name):
    ids = encode(tokenizer(backend, name), RECORDS["twenty turns"]).input_ids.tolist()
    expected = {"llama2": 20, "chatglm": 0}.get(name, 1)  # ChatGLM starts with [gMASK]<sop>
    assert ids.count(backend.token_to_id("<s>")) == expected
    if expected:
        assert ids[0] == backend.token_to_id("<s>")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_tokenizer_without_bos(backend, name):
    mine = ChatTokenizer(backend, TEMPLATES[name].jinja(), {"eos_token": "</s>"})
    assert backend.token_to_id("<s>") not in encode(mine, RECORDS["system"]).input_ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_the_beginning_of_the_turn(backend, name):
    """What a model is asked with is what it was trained behind, token for token."""
    mine = tokenizer(backend, name)
    for title in ("plain", "system", "tools"):
        record = RECORDS[title]
        document = encode(mine, record)
        prompt = mine.encode_prompt(record["messages"][:-1], record.get("tools"))
        first = next(
            at
            for at in range(len(document) - 1, -1, -1)
            if document.labels[at] != -100 and document.labels[at - 1] == -100
        )
        assert document.input_ids[:first].tolist() == prompt, title


def test_all_that_a_record_holds_is_shown(backend):
    for name in TEMPLATES:
        text = tokenizer(backend, name).template.render(TOOL_CONVERSATION, TOOLS)
        for words in ("How is the weather?", "一个城市", "now", "Let me look.", "Deutz", "12:00", "서울"):
            assert words in text, name


def test_train_on_last_and_all(backend):
    record = {"messages": chat("q1", "a1", "q2", "a2", system="s")}
    last = encode(tokenizer(backend, "chatml", train_on="last"), record)
    assert learnt_texts(backend, last) == ["a2<|im_end|>"]
    every = encode(tokenizer(backend, "chatml", train_on="all"), record)
    assert every.labels.tolist() == every.input_ids.tolist()


def test_a_turn_that_is_not_to_be_learnt(backend):
    messages = chat("q1", "a1", "q2", "a2")
    messages[1] = messages[1] | {"train": False}
    learnt = {
        train_on: learnt_texts(
            backend, encode(tokenizer(backend, "chatml", train_on=train_on), {"messages": messages})
        )
        for train_on in ("assistant", "last", "all")
    }
    assert learnt["assistant"] == learnt["last"] == ["a2<|im_end|>"]
    assert "a1" not in "".join(learnt["all"]) and "q1" in "".join(learnt["all"])
    messages[3] = messages[3] | {"train": False}
    assert not encode(tokenizer(backend, "chatml", train_on="last"), {"messages": messages}).supervised_tokens
