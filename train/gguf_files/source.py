"""The model folder as llama.cpp's converter gets it: links to the input's files, and what the converter has
to be told besides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from train.data.loading import read_json
from train.gguf_files.family import opens_with_blank, pre_tokenizer


def prepare(model: Path, backend: Tokenizer, folder: Path) -> str | None:
    """Fill `folder`; returns the pre-tokenizer to declare, None where there is none to name: a SentencePiece
    tokenizer has none, and one that nobody names may be known to the converter. `backend`: the tokenizer as
    training used it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.is_file() and path.name != "tokenizer_config.json":
            (folder / path.name).symlink_to(path.absolute())
    if not (folder / "tokenizer.json").exists():
        backend.save(str(folder / "tokenizer.json"))
    tokenizer = json.loads(backend.to_str())
    config = read_json(model / "tokenizer_config.json")
    completed = converter_config(config, tokenizer, adds_bos=_adds_bos(backend))
    text = json.dumps(completed, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    if tokenizer["model"].get("byte_fallback"):
        return None
    return pre_tokenizer(tokenizer, config.get("pre_tokenizer"))


def converter_config(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], *, adds_bos: bool
) -> dict[str, Any]:
    """tokenizer_config.json with what the converter reads there and transformers 5 keeps in tokenizer.json
    alone: the added tokens. That no BOS is added where none is: readers of GGUF take silence for a yes
    (Ollama: `tokenizer.ggml.add_bos_token`, true unless said). And that no blank is put before words where
    one belongs to the beginning of a text alone: conversations begin with a special token."""
    added = {
        str(token["id"]): {name: value for name, value in token.items() if name != "id"}
        for token in tokenizer.get("added_tokens", [])
    }
    known = config.get("added_tokens_decoder") or {}
    completed = {**config, "added_tokens_decoder": {**added, **known}}
    if config.get("add_bos_token") is None and not adds_bos:
        completed["add_bos_token"] = False
    if opens_with_blank(tokenizer):
        completed["add_prefix_space"] = False
    return completed


def _adds_bos(tokenizer: Tokenizer) -> bool:
    """Whether anything is put before a text."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    return tokenizer.encode("a", add_special_tokens=True).ids[: len(plain)] != plain
