"""`slipway chat` as people use it: on a terminal, and through pipes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.contract import Source
from artifacts.records import GoodRecord, RecordFile
from tests.local import serving_models
from tests.local.terminal import Terminal
from train.chat.columns import SideBySide, column_width

pytestmark = [pytest.mark.products, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SLIPWAY = [sys.executable, "-m", "launcher.cli"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
CONTEXT = 8192
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `base`, `adapter`, and `base.gguf`: models that never stop by themselves. Their context is long
    enough to stop them on the way."""
    folder = tmp_path_factory.mktemp("models")
    base = serving_models.write_model(folder / "base", context=CONTEXT)
    serving_models.write_adapter(base, folder / "adapter")
    serving_models.write_gguf(base, folder / "base.gguf")
    return folder


def piped(folder: Path, lines: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SLIPWAY, "chat", *options],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        input=lines,
        capture_output=True,
        text=True,
    )


def test_a_conversation_on_a_terminal(folder: Path) -> None:
    command = [*SLIPWAY, "chat", "base.gguf", "--max-new-tokens", "12", "--system", "Be brief."]
    with Terminal(command, cwd=folder, environment=ENVIRONMENT) as chat:
        chat.wait_for(">>> ")
        chat.type("what is it\n")
        first = chat.wait_for("\n12 tokens, ").partition("\n")[2]
        assert len(first) == 12
        assert "tokens/s" in chat.wait_for("cut off")
        chat.wait_for(">>> ")
        chat.type("/retry\n")
        assert chat.wait_for("\n12 tokens").partition("\n")[2] == first, "greedy"
        chat.wait_for(">>> ")
        chat.type("and more\n")
        chat.wait_for("12 tokens")
        chat.wait_for(">>> ")
        chat.type("/save talk.jsonl\n")
        chat.wait_for("talk.jsonl: 1 conversation")
        chat.wait_for(">>> ")
        chat.type("/system\n")
        chat.wait_for("there is no system message")
        chat.wait_for(">>> ")
        chat.type("/reset\n")
        chat.wait_for("starts anew")
        chat.wait_for(">>> ")
        chat.type("/retry\n")
        chat.wait_for("no question to answer again")
        chat.wait_for(">>> ")
        chat.type("/nonsense\n")
        chat.wait_for("there is no /nonsense")
        chat.wait_for(">>> ")
        chat.type("/quit\n")
        assert chat.end() == 0
    (record,) = RecordFile(folder / "talk.jsonl")
    assert isinstance(record, GoodRecord)
    said = [(message["role"], message["content"]) for message in record.messages]
    assert [role for role, _ in said] == ["system", "user", "assistant", "user", "assistant"]
    assert said[:3] == [("system", "Be brief."), ("user", "what is it"), ("assistant", first)]


def test_control_c_stops_the_answer_and_not_the_chat(folder: Path) -> None:
    """Two lines are one question."""
    with Terminal([*SLIPWAY, "chat", "base.gguf"], cwd=folder, environment=ENVIRONMENT) as chat:
        chat.wait_for("base: GGUF file, llama.cpp, ")
        chat.wait_for(">>> ")
        for _ in range(2):
            chat.type("what\\\n")
            chat.wait_for("... ")
            chat.type("is it\n")
            chat.wait_for("is it\n")
            chat.wait_for(" ")  # of the answer: it is on its way
            chat.type(CTRL_C)
            assert 0 < int(chat.wait_for(" tokens, ").split()[-1]) < CONTEXT - 100
            chat.wait_for("stopped")
            chat.wait_for(">>> ")
        chat.type(CTRL_C)
        chat.wait_for("^D or /quit leaves")
        chat.wait_for(">>> ")
        chat.type("/save lines.jsonl\n")
        chat.wait_for("lines.jsonl: 1")
        chat.wait_for(">>> ")
        chat.type(CTRL_D)
        assert chat.end() == 0
    saved = json.loads((folder / "lines.jsonl").read_text())
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"] * 2
    assert saved["messages"][0]["content"] == "what\nis it"


def test_two_models_side_by_side(folder: Path) -> None:
    source = Source(name="left", gguf=folder / "base.gguf")
    sources = [source, dataclasses.replace(source, name="right")]
    command = [sys.executable, "-m", "train.chat", "--max-new-tokens", "40"]
    command += [f"--source={each.to_json()}" for each in sources]
    with Terminal(command, cwd=folder, environment=ENVIRONMENT, columns=80) as chat:
        chat.wait_for(">>> ")
        chat.type("what is it\n")
        chat.wait_for("left: 40 tokens, ")
        chat.wait_for("right: 40 tokens, ")
        chat.wait_for(">>> ")
        shown = chat.shown
        chat.type("/save both.jsonl\n")
        chat.wait_for("both.jsonl: 1")
        chat.wait_for(">>> ")
        chat.type(CTRL_D)
        assert chat.end() == 0
    answer = json.loads((folder / "both.jsonl").read_text())["messages"][1]["content"]
    width = column_width(80)
    assert width is not None and len(answer) == 40
    expected = SideBySide(width)
    for column, name in enumerate(("left", "right")):
        expected.add(column, f"{name}\n{answer}")
    assert "\n".join(expected.open_rows()) + "\nleft: 40 tokens" in shown


def test_base_and_tuned(folder: Path) -> None:
    answered = piped(folder, "what is it\n", "adapter", "--compare", "--max-new-tokens", "12")
    (base, untuned), (adapter, tuned) = (line.split(": ", 1) for line in answered.stdout.splitlines())
    assert (base, adapter) == ("base", "adapter")
    assert len(untuned) == len(tuned) == 12 and untuned != tuned
    assert "base: base model, " in answered.stderr
    assert "adapter: base model with adapter, " in answered.stderr


def test_through_pipes(folder: Path) -> None:
    answered = piped(folder, "what is it\n\nand more\n", "base.gguf", "--max-new-tokens", "12")
    assert answered.returncode == 0
    first, second = answered.stdout.splitlines()
    assert len(first) == len(second) == 12
    assert "GGUF file" in answered.stderr
    again = piped(folder, "what is it\n/reset\nwhat is it\n", "base.gguf", "--max-new-tokens", "12")
    assert again.stdout.splitlines() == [first, first]


def test_the_seed_decides(folder: Path) -> None:
    options = ("base.gguf", "--max-new-tokens", "12", "--temperature", "0.7", "--seed")
    lines = "what\n/reset\nwhat\n"
    first, other = (piped(folder, lines, *options, seed).stdout for seed in ("1", "2"))
    assert piped(folder, lines, *options, "1").stdout == first != other
    answer, again = first.removesuffix("\n").split("\n")
    assert answer != again, "each answer is drawn anew"


@pytest.mark.parametrize(
    ("argv", "lines", "why"),
    [
        (["nowhere.gguf"], "", "there is no such file"),
        (["broken.gguf"], "", "llama.cpp can't load it"),
        (["base", "--base"], "", "does not say which model it was made of"),
        (["base.gguf", "--product", "merged"], "", "holds no merged model"),
        (["base.gguf"], "a" * 9000 + "\n", "context holds 8,192"),
        (["base.gguf"], "/nonsense\n", "there is no /nonsense"),
    ],
)
def test_an_error_is_one_clear_line(folder: Path, argv: list[str], lines: str, why: str) -> None:
    (folder / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    failed = piped(folder, lines, *argv)
    told = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert failed.returncode == 2 and len(told) == 1
    assert why in told[0]
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
