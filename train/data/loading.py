"""The tokenizer of a model folder, as transformers would load it, without importing transformers (4 s) where
the folder's files alone say what it would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from artifacts.contract import TrainOn
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer
from train.stage import StageUserError

#: Files of a model folder that make up its tokenizer, as patterns.
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*",
)

#: Named tokens that a template may use (transformers' SPECIAL_TOKENS_ATTRIBUTES).
SPECIAL_TOKEN_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

#: Model types whose tokenizers transformers neither replaces nor patches.
_PLAIN_MODEL_TYPES = {"llama", "qwen2", "qwen3", "qwen3_moe"}

#: The pre-tokenizer of Qwen2 and Qwen3: transformers' Qwen2Tokenizer puts it in whatever tokenizer.json says.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_chat_tokenizer(
    folder: Path, *, trust_remote_code: bool = False, train_on: TrainOn = "assistant"
) -> ChatTokenizer:
    """Raises StageUserError where the folder has no usable tokenizer. One without a chat template is for
    texts alone: it raises at the first conversation."""
    config = read_json(folder / "tokenizer_config.json")
    if loads_as_saved(folder, config):
        backend = _read_backend(folder / "tokenizer.json")
        names = {name: token_text(config[name]) for name in SPECIAL_TOKEN_NAMES if config.get(name)}
        template = saved_template(folder, config)
    else:
        tokenizer = load_with_transformers(folder, trust_remote_code)
        backend, names = tokenizer.backend_tokenizer, dict(tokenizer.special_tokens_map)
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    try:
        return ChatTokenizer(backend, template, names, train_on=train_on)
    except TemplateError as error:
        raise StageUserError(f"{folder}: {error}", "mend chat_template.jinja") from error


def loads_as_saved(folder: Path, config: dict[str, Any]) -> bool:
    """Whether `AutoTokenizer` uses the folder's tokenizer.json unchanged (transformers 5.23)."""
    if not (folder / "tokenizer.json").is_file() or "auto_map" in config:
        return False
    if read_json(folder / "config.json").get("model_type") not in _PLAIN_MODEL_TYPES:
        return False
    name = config.get("tokenizer_class")
    if name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return "add_bos_token" not in config and "add_eos_token" not in config
    if name in ("Qwen2Tokenizer", "Qwen2TokenizerFast"):
        saved = read_json(folder / "tokenizer.json")
        split = (saved.get("pre_tokenizer") or {}).get("pretokenizers", [{}])[0].get("pattern")
        return split == {"Regex": QWEN2_SPLIT} and saved.get("normalizer") == {"type": "NFC"}
    return False


def _read_backend(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise StageUserError(f"{path}: {error}", "the file is damaged: get it again") from error


def saved_template(folder: Path, config: dict[str, Any]) -> str | None:
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        return {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def load_with_transformers(folder: Path, trust_remote_code: bool) -> Any:
    """The folder's tokenizer as `AutoTokenizer` makes it. Raises StageUserError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise StageUserError(f"{folder}: its tokenizer can't be loaded: {error}", "") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise StageUserError(
            f"{folder}: {type(tokenizer).__name__} is no fast tokenizer",
            "use a model whose folder has a tokenizer.json",
        )
    return tokenizer


def token_text(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else token["content"]


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StageUserError(f"{path}: {error}", "the file is damaged: get it again") from error
