"""Ollama's Modelfile, read back as Ollama's parser reads it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.train.backends import VARIABLES, byte_level_backend
from tests.train.chat_templates import CHATML, GEMMA
from train.data.tokenize import ChatTokenizer
from train.gguf_files.modelfile import Model, modelfile

FILES = {"f16": "bot-f16.gguf", "q4_k_m": "bot-q4_k_m.gguf"}
CONFIG = {"max_position_embeddings": 2048}


def model(template: str | None = CHATML, config: Any = CONFIG, **generation: Any) -> Model:
    tokenizer = ChatTokenizer(byte_level_backend(), template, VARIABLES)
    return Model(tokenizer, template or "", config, generation)


def commands(text: str) -> list[tuple[str, str]]:
    """(command, value) of a Modelfile, values in three quotation marks taken as they are."""
    found = re.findall(r'^([A-Z]+) ((?:"""(?:.|\n)*?""")|(?:[a-z_]+ """(?:.|\n)*?""")|.*)$', text, re.M)
    return [(command, value.replace('"""', "")) for command, value in found]


def write(made: Model, system: str | None = None, *, adds_bos: bool = False) -> list[tuple[str, str]]:
    return commands(modelfile(FILES, made, system=system, adds_bos=adds_bos))


def test_names_the_smallest_file_and_when_an_answer_ends() -> None:
    found = write(model(), "Be brief.\nAnd kind.")
    assert found[0] == ("FROM", "./bot-q4_k_m.gguf")
    assert ("SYSTEM", "Be brief.\nAnd kind.") in found and ("PARAMETER", "num_ctx 2048") in found
    stops = [value for command, value in found if value.startswith("stop")]
    assert stops == ["stop <|im_end|>", "stop </s>", "stop <|im_start|>user"]
    assert "# Also here: bot-f16.gguf" in modelfile(FILES, model(), system=None, adds_bos=False)
    assert not any(command == "SYSTEM" for command, _ in write(model()))


def test_what_the_model_declares_to_end_an_answer_is_a_stop_word() -> None:
    backend = byte_level_backend()
    ends = [backend.token_to_id("<|im_start|>"), backend.token_to_id("</s>")]
    stops = [value for _, value in write(model(eos_token_id=ends)) if value.startswith("stop")]
    assert stops[:3] == ["stop <|im_end|>", "stop <|im_start|>", "stop </s>"]


def test_bos_is_left_to_who_adds_it() -> None:
    (kept,) = (value for command, value in write(model(GEMMA)) if command == "TEMPLATE")
    (left,) = (value for command, value in write(model(GEMMA), adds_bos=True) if command == "TEMPLATE")
    assert '"<s><start_of_turn>user\\n"' in kept
    assert "<s>" not in left and '"<start_of_turn>user\\n"' in left


def test_sampling_as_the_model_s_makers_want_it() -> None:
    wanted = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05}
    found = write(model(**wanted))
    assert [value for _, value in found][-3:] == ["temperature 0.7", "top_k 20", "repeat_penalty 1.05"]
    assert not any("temperature" in value for _, value in write(model(**{**wanted, "do_sample": False})))


def test_a_long_context_is_the_user_s_to_ask_for() -> None:
    text = modelfile(FILES, model(config={"max_position_embeddings": 131072}), system=None, adds_bos=False)
    assert "PARAMETER num_ctx 8192" in text and "# The model reads up to 131072 tokens" in text


@pytest.mark.parametrize(
    ("made", "system", "comment"),
    [
        (model("{{ messages | length }}{{ messages[0].content }}"), None, "can't be written in Go"),
        (model(CHATML + "{{ strftime_now('%Y') }}"), None, "can't be written in Go"),
        (model(None), None, "can't be written in Go"),
        (model(GEMMA), "Be brief.", "no place for a system prompt"),
        (model(), 'Say """.', "no Modelfile can"),
    ],
)
def test_what_can_t_be_told_is_said(made: Model, system: str | None, comment: str) -> None:
    text = modelfile(FILES, made, system=system, adds_bos=False)
    assert re.search(f"^# .*{comment}", text, re.M)
    assert not re.search("^SYSTEM", text, re.M)
    assert ("TEMPLATE" in text) == ("Go" not in comment)
