from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.data_show import Shown, render, show
from launcher.errors import UserError

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RECORDS = [
    {"messages": [{"role": "user", "content": "안녕 👩‍👧"}, {"role": "assistant", "content": "word\nword"}]},
    {"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]},
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|user|>", "<|assistant|>", "<|end|>"])
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS))
    return path


def look(file: Path, model: Path, **options: object) -> list[Shown]:
    given = {"template": None, "format": "auto", "train_on": "assistant", "count": 3} | options
    return show(file, tokenizer=model, **given)  # type: ignore[arg-type]


def test_segments_tokens_and_labels(file: Path, model: Path) -> None:
    first, second = look(file, model)
    assert first.segments == [
        {"text": "<|user|>안녕 👩‍👧<|end|>\n<|assistant|>", "learnt": False},
        {"text": "word\nword<|end|>", "learnt": True},
        {"text": "\n", "learnt": False},
    ]
    assert "".join(first.tokens) == "".join(each["text"] for each in first.segments)
    assert len(first.tokens) == len(first.input_ids) == len(first.labels)
    row = json.loads(second.to_json())
    assert row.keys() == {"segments", "input_ids", "labels"}
    assert [label for label in row["labels"] if label != -100] == row["input_ids"][-3:-1]  # c <|end|>


def test_a_named_template_and_other_turns(file: Path, model: Path) -> None:
    (shown,) = look(file, model, template="chatml", count=1, train_on="all")
    assert [each["learnt"] for each in shown.segments] == [True]
    assert shown.segments[0]["text"].startswith("<|im_start|>user\n안녕")


def test_as_text(file: Path, model: Path) -> None:
    (shown,) = look(file, model, count=1)
    learnt = sum(label != -100 for label in shown.labels)
    assert render([shown], colours=False).splitlines() == [
        f"record 1: {len(shown.input_ids)} tokens, {learnt} learnt",
        "<|user|>안녕 👩‍👧<|end|>↵",
        "<|assistant|>⟦word↵",
        "word<|end|>⟧↵",
    ]
    coloured = render([shown], colours=True)
    assert "\x1b[30;42mw\x1b[0m\x1b[30;102mo\x1b[0m" in coloured or (
        "\x1b[30;102mw\x1b[0m\x1b[30;42mo\x1b[0m" in coloured
    )


def test_a_text_steers_no_terminal() -> None:
    shown = Shown(
        segments=[{"text": "\x1b[2Jx", "learnt": False}], tokens=["\x1b[2Jx"], input_ids=[1], labels=[-100]
    )
    assert render([shown], colours=False).splitlines()[1] == "\\x1b[2Jx"


@pytest.mark.parametrize(
    ("line", "options", "why"),
    [
        ('{"messages": [{"role": "user"}]}', {}, "line 1.*message 1"),
        ('{"text": "a"}', {"template": "nonesuch"}, "no name of a template.*chatml"),
        (
            json.dumps(RECORDS[1] | {"tools": [{"type": "function", "function": {"name": "x"}}]}),
            {},
            "its tool",
        ),
    ],
)
def test_mistakes(tmp_path: Path, model: Path, line: str, options: dict, why: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=why):
        look(path, model, **options)
