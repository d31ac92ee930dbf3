"""What the converter is told that the model folder does not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import TwinParams
from train.gguf_files import source
from train.stage import StageUserError
from train.twin import make_twin


def test_links_with_a_completed_tokenizer_config(tmp_path: Path) -> None:
    model, folder = tmp_path / "model", tmp_path / "links"
    model.mkdir()
    for name, data in make_twin(TwinParams(hidden_size=32), ["some text"]).items():
        (model / name).write_bytes(data)
    assert source.prepare(model, folder) == source.prepare(model, folder) == "qwen2"
    assert (folder / "model.safetensors").is_symlink()
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert config["add_bos_token"] is False and config["eos_token"] == "<|im_end|>"
    added = {token["content"]: token["special"] for token in config["added_tokens_decoder"].values()}
    assert added == {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True}
    assert "add_bos_token" not in json.loads((model / "tokenizer_config.json").read_bytes())


def test_what_the_model_says_stays() -> None:
    said = {"add_bos_token": True, "added_tokens_decoder": {"1": {"content": "<s>"}}}
    tokenizer = {"added_tokens": [{"id": 1, "content": "x"}, {"id": 2, "content": "<u>", "special": False}]}
    completed = source.converter_config(said, tokenizer, adds_bos=False)
    assert completed["add_bos_token"] is True
    assert completed["added_tokens_decoder"] == {
        "1": {"content": "<s>"},
        "2": {"content": "<u>", "special": False},
    }
    assert "add_bos_token" not in source.converter_config({}, {}, adds_bos=True)


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(StageUserError, match=r"no tokenizer\.json"):
        source.prepare(tmp_path / "model", tmp_path / "links")
