from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from artifacts.contract import Reading
from artifacts.readers import BadRecord
from launcher.commands.data import app
from launcher.data_check import Bucket, Report, Tokens, check, render
from launcher.errors import UserError

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tokenizer that makes every word a token, and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    markers = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    vocabulary = {word: index for index, word in enumerate(["?", *markers, "word"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(markers)
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def write(folder: Path, *records: tuple[int, int]) -> Path:
    """Records of so many words of question and answer."""
    path = folder / "train.jsonl"
    rows = [{"instruction": ("word " * q).strip(), "output": ("word " * a).strip()} for q, a in records]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_counts_without_a_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path, (1, 1), (1, 1), (10, 10))
    path.write_bytes(path.read_bytes() + b'{"instruction": "a", "output": "", "id": 1}\n[')
    report = check(path)
    assert (report.records, report.bad_records, report.duplicates, report.ok) == (3, 2, 1, False)
    assert [bad.number for bad in report.bad] == [4, 5]
    assert report.unit == "characters" and report.longest_characters == 98
    assert report.histogram == [Bucket(8, 2), Bucket(16, 0), Bucket(32, 0), Bucket(64, 0), Bucket(128, 1)]
    text = render(report)
    for part in (
        "format alpaca (detected)",
        "3 good records, 2 bad, 1 of the good",
        "record 4 (line 4, byte",
        "--tokenizer",
    ):
        assert part in text


def test_tokens_truncation_and_lost_supervision(tmp_path: Path, model: Path) -> None:
    # <|user|> words <|end|> <|assistant|> words <|end|>: words and 4 markers
    path = write(tmp_path, (1, 1), (5, 20), (30, 5), (6, 6))
    report = check(path, tokenizer=model, max_length=16)
    tokens = report.tokens
    assert tokens is not None and report.ok and report.unit == "tokens"
    assert (tokens.truncated, tokens.truncated_numbers) == (2, [2, 3])
    assert (tokens.unsupervised, tokens.unsupervised_numbers) == (1, [3])
    assert tokens.longest == 39
    assert sum(bucket.records for bucket in report.histogram) == 4
    assert report.histogram[-1] == Bucket(None, 2)
    text = render(report)
    assert "2 would be truncated to 16 tokens (records 2, 3)" in text
    assert "1 would end with no supervised token (records 3)" in text
    assert "over the maximum" in text


def test_a_folder_without_a_tokenizer_is_the_users_mistake(tmp_path: Path, model: Path) -> None:
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no chat template"):
        check(write(tmp_path, (1, 1)), tokenizer=model)


def test_a_file_that_is_none_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json: no such file"):
        check(tmp_path / "missing.json")


def test_rendering() -> None:
    bad = BadRecord(3, 120, 3, "output is empty", "a.jsonl")
    tokens = Tokens(
        tokenizer="m",
        max_length=2000,
        truncated=12,
        truncated_numbers=list(range(1, 11)),
        unsupervised=0,
        unsupervised_numbers=[],
        refused=1,
        refused_reasons=["record 9: no system role"],
        total=90_000,
        supervised=40_000,
        longest=2500,
    )
    report = Report(
        path="a.jsonl",
        size_bytes=123_456,
        said="JSON lines, format alpaca (detected)",
        format="alpaca",
        records=1000,
        bad_records=25,
        bad=[bad],
        duplicates=0,
        near_duplicates=3,
        overlap=4,
        lost={"id": 1000},
        unit="tokens",
        histogram=[Bucket(100, 0), Bucket(200, 900), Bucket(300, 0), Bucket(400, 100), Bucket(None, 0)],
        longest_characters=10,
        characters=20,
        tokens=tokens,
    )
    bar = "█" * 40
    assert render(report).splitlines() == [
        "a.jsonl: JSON lines, format alpaca (detected), 123,456 bytes",
        "  1,000 good records, 25 bad",
        "  3 more do but for case, spaces and punctuation",
        "  4 ask what a record of the other file asks",
        "  not passed on (of so many records): id (1,000)",
        "",
        "Bad records",
        "  record 3 (line 3, byte 120): output is empty",
        "  and 24 more",
        "",
        "Tokens per record (maximum length 2,000)",
        f"         up to 200  {bar} 900",
        f"         up to 300  {' ' * 40} 0",
        f"         up to 400  {'█' * 4}{' ' * 36} 100",
        "",
        "  longest record 2,500 tokens, 90,000 in all, 40,000 of them supervised",
        "  12 would be truncated to 2,000 tokens (records 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)",
        "  0 would end with no supervised token",
        "  1 are refused by the chat template",
        "    record 9: no system role",
    ]
    empty = dataclasses.replace(report, histogram=[], tokens=None, bad=[], bad_records=0)
    assert "Tokens per record" not in render(empty)


DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("path", sorted((DATA / "formats").iterdir()), ids=lambda path: path.name)
def test_every_format_is_told(path: Path, tmp_path: Path) -> None:
    report = check(path)
    assert report.ok and report.format == path.stem and not report.duplicates
    text = render(report)
    assert f"format {path.stem} (detected)" in text
    if path.stem == "custom":
        assert "its items are made when the stage prepare runs it" in text
    else:
        assert report.records and report.characters


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    rows = [{"question": "a?", "answer": "b", "id": number, "more": ""} for number in range(3)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": "A", "answer": "b!"}]))
    report = check(path)
    assert (report.lost, report.duplicates, report.near_duplicates) == ({"id": 3}, 2, 1)
    assert "not passed on (of so many records): id (3)" in render(report)


def run(*argv: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["check", *argv])
    if isinstance(result.exception, UserError):
        assert code == 2
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_takes_columns_folders_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ask,reply\na b .,c\n")
    (tmp_path / "b.csv").write_text("ask,reply\nd,\n")
    columns = ["--column", "prompt=ask", "--column", "response=reply"]
    said = run(str(tmp_path), *columns, "--fix-spacing", code=2)
    assert "columns ask and reply" in said and "1 good record, 0 bad" in said and "reply is empty" in said
    assert json.loads(run(str(tmp_path / "a*"), *columns, "--fix-spacing", "--json"))["characters"] == 5
    assert "wrong columns: found ask, reply" in run(str(tmp_path / "a.csv"), code=2)
    assert "2 good records" in run("identity", "--dataset-info", str(DATA / "llama_factory"))
    assert "is for preference" in run("pairs", "--dataset-info", str(DATA / "llama_factory"), code=2)
    assert "--column ask=prompt: is not ROLE=NAME" in run("a", "--column", "ask=prompt", code=2)
    assert "not one of auto, messages," in run("a", "--format", "tsv", code=2)
    assert "no file has a name of this pattern" in run(str(tmp_path / "*.json"), code=2)


def test_the_command_counts_questions_of_another_file(tmp_path: Path) -> None:
    for name, numbers in (("train", range(10)), ("test", range(8, 12))):
        rows = [{"question": f"{number}?", "answer": name} for number in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run(str(tmp_path / "test.jsonl"), "--against", str(tmp_path / "train.jsonl"))
    assert "  2 ask what a record of the other file asks" in said
    assert "no such file" in run(str(tmp_path / "test.jsonl"), "--against", "none.jsonl", code=2)


def test_tokens_are_counted_of_what_is_read(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.csv").write_text("ask,reply\nword word .,word\n")
    reading = Reading(columns={"prompt": "ask", "response": "reply"}, fix_spacing=True)
    report = check(tmp_path / "a.csv", reading=reading, tokenizer=model)
    assert report.tokens is not None and report.tokens.longest == 3 + 4
