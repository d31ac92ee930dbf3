"""What the converter is told that the model folder does not say."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from artifacts.contract import TwinParams
from tests.train.backends import sentencepiece_backend
from train.gguf_files import source
from train.twin import make_twin


def test_links_with_a_completed_tokenizer_config(tmp_path: Path) -> None:
    model, folder = tmp_path / "model", tmp_path / "links"
    model.mkdir()
    for name, data in make_twin(TwinParams(hidden_size=32), ["some text"]).items():
        (model / name).write_bytes(data)
    backend = Tokenizer.from_file(str(model / "tokenizer.json"))
    for _ in range(2):  # leftovers of an earlier attempt do no harm
        assert source.prepare(model, backend, folder) == "qwen2"
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


def test_a_tokenizer_without_a_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert source.prepare(tmp_path / "model", sentencepiece_backend(), tmp_path / "links") is None
    config = json.loads((tmp_path / "links/tokenizer_config.json").read_bytes())
    assert config["add_prefix_space"] is False
    assert (tmp_path / "links/tokenizer.json").is_file()
