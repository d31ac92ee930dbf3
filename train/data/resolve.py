"""The tokenizer and the chat template that a job asks for, as one folder: `prepared/<key>/tokenizer/`.

Everything behind `prepare` uses that folder, so that training, answering and whoever loads the model later
render the same tokens. It loads with plain transformers. Where nothing is asked for, it is a copy of the
model's own files. Beside the tokenizer may lie a `generation_config.json` with the tokens that end an answer.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from artifacts.contract import TemplateParams, TrainOn
from train.data.loading import (
    TOKENIZER_FILES,
    load_chat_tokenizer,
    load_with_transformers,
    loads_as_saved,
    read_json,
    saved_template,
    token_text,
)
from train.data.named_templates import NAMED, NamedTemplate, from_pieces
from train.data.named_templates.parts import with_default_system
from train.data.tokenize import ChatTokenizer
from train.stage import StageUserError

TEMPLATE_FILE = "chat_template.jinja"
#: Files of a model folder that `AutoTokenizer` may look at, code included.
_FILES = (*TOKENIZER_FILES, "config.json", "*.py", TEMPLATE_FILE)
#: Tokens that families keep for padding, tried in this order where a tokenizer declares none.
_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<|endoftext|>", "<unk>")
_STOP_ADVICE = "name the token that ends an answer: template.stop_words, with template.replace_eos: true"


@dataclass(frozen=True)
class ResolvedTokenizer:
    """What `resolve_tokenizer` left in `folder`."""

    folder: Path
    chat: ChatTokenizer
    template: str  # its name, "own" or "custom"
    added_tokens: dict[str, int] = field(default_factory=dict)  # new in the vocabulary: the model must grow
    stop_token_ids: list[int] = field(default_factory=list)  # any of them ends an answer


@dataclass(frozen=True)
class _Wanted:
    """What a job asks of tokenizer and template."""

    template: str
    jinja: str | None  # None: the tokenizer's own
    tokens: tuple[str, ...]
    eos: str | None
    stop_words: tuple[str, ...]
    default_system: str | None  # of the tokenizer's own template
    uses_eos: bool


def resolve_tokenizer(
    model: Path,
    params: TemplateParams,
    folder: Path,
    *,
    train_on: TrainOn = "assistant",
    trust_remote_code: bool = False,
) -> ResolvedTokenizer:
    """Write the tokenizer of the `model` folder with the template of `params` into `folder`.

    Raises StageUserError for a folder without a usable tokenizer, a template that can't be compiled, and
    where nothing would end an answer.
    """
    wanted = _wanted(params)
    folder.mkdir(parents=True)
    added = _write_tokenizer(model, wanted, folder, trust_remote_code)
    _write_template(folder, wanted)
    config = read_json(folder / "tokenizer_config.json")
    if wanted.uses_eos and not config.get("eos_token"):
        raise StageUserError(
            f"{model}: the tokenizer has no EOS token, which the template {wanted.template} ends turns with",
            _STOP_ADVICE,
        )
    chat = load_chat_tokenizer(folder, trust_remote_code=trust_remote_code, train_on=train_on)
    changes = _missing_names(config, chat, model)
    if changes:
        _declare(folder, changes)
        chat = load_chat_tokenizer(folder, trust_remote_code=trust_remote_code, train_on=train_on)
    stop_token_ids = _stop_token_ids(chat, wanted)
    _write_generation_config(model, folder, stop_token_ids)
    return ResolvedTokenizer(
        folder, chat, template=wanted.template, added_tokens=added, stop_token_ids=stop_token_ids
    )


def _wanted(params: TemplateParams) -> _Wanted:
    named: NamedTemplate | None = None
    template, jinja = "own", None
    if params.name:
        named, template = NAMED[params.name], params.name
    elif params.pieces:
        named, template = from_pieces(params.pieces), "custom"
    elif params.jinja:
        jinja, template = with_default_system(params.jinja, params.default_system), "custom"
    stop_words = tuple(params.stop_words)
    wanted = _Wanted(
        template,
        jinja,
        tokens=stop_words,
        eos=stop_words[0] if params.replace_eos else None,
        stop_words=stop_words,
        default_system=params.default_system if template == "own" else None,
        uses_eos=False,
    )
    if named is None:
        return wanted
    return replace(
        wanted,
        jinja=named.jinja(params.default_system),
        tokens=(*named.tokens, *(word for word in stop_words if word not in named.tokens)),
        eos=wanted.eos or named.eos,
        stop_words=(*named.stop_words, *stop_words),
        uses_eos=named.uses_eos,
    )


def _write_tokenizer(model: Path, wanted: _Wanted, folder: Path, trust_remote_code: bool) -> dict[str, int]:
    """The tokenizer's files with the wanted tokens; returns those that are new."""
    for pattern in _FILES:
        for source in sorted(model.glob(pattern)):
            if source.is_file():
                shutil.copyfile(source, folder / source.name)
    config = read_json(folder / "tokenizer_config.json")
    if not wanted.tokens:
        return {}
    if loads_as_saved(folder, config):
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        added = _new_tokens(backend, wanted.tokens)
        backend.add_special_tokens([_special(token) for token in wanted.tokens])
        backend.save(str(folder / "tokenizer.json"))
        known = config.get("added_tokens_decoder")
        if known is not None:
            known |= {str(backend.token_to_id(token)): _described(token) for token in wanted.tokens}
            _write_json(folder / "tokenizer_config.json", config)
    else:
        tokenizer = load_with_transformers(folder, trust_remote_code)
        added = _new_tokens(tokenizer.backend_tokenizer, wanted.tokens)
        tokenizer.add_tokens([_special(token) for token in wanted.tokens], special_tokens=True)
        tokenizer.save_pretrained(folder)
        backend = tokenizer.backend_tokenizer
    if wanted.eos:
        _declare(folder, {"eos_token": wanted.eos})
    return {token: backend.token_to_id(token) for token in added}


def _declare(folder: Path, names: dict[str, Any]) -> None:
    """Write named tokens into each file that `AutoTokenizer` takes them from."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (file := folder / name).is_file() or name == "tokenizer_config.json":
            _write_json(file, read_json(file) | names)


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def _described(token: str) -> dict[str, Any]:
    """As `added_tokens_decoder` of tokenizer_config.json lists it."""
    return {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def _new_tokens(backend: Tokenizer, tokens: tuple[str, ...]) -> list[str]:
    return [token for token in tokens if backend.token_to_id(token) is None]


def _write_template(folder: Path, wanted: _Wanted) -> None:
    """One template, in a file of its own, whatever the model folder had."""
    config = read_json(folder / "tokenizer_config.json")
    jinja = wanted.jinja
    if jinja is None:
        own = saved_template(folder, config)
        jinja = with_default_system(own, wanted.default_system) if own else None
    if jinja is not None:
        (folder / TEMPLATE_FILE).write_text(jinja, encoding="utf-8")
        if config.pop("chat_template", None) is not None:
            _write_json(folder / "tokenizer_config.json", config)


def _missing_names(config: dict[str, Any], chat: ChatTokenizer, model: Path) -> dict[str, Any]:
    """EOS and padding token where the tokenizer declares none: what ends the template's turns; a token that
    families keep for padding, or EOS, which is safe as padding is never learnt, wherever it lies."""
    changes: dict[str, Any] = {}
    eos = token_text(config["eos_token"]) if config.get("eos_token") else chat.special_tokens.get("eos_token")
    if not eos:
        eos = chat.template.end_of_turn.strip()
        if chat.backend.token_to_id(eos) is None:
            raise StageUserError(
                f"{model}: the tokenizer has no EOS token and its template no token that ends a turn: "
                "nothing would end an answer",
                _STOP_ADVICE,
            )
        changes["eos_token"] = eos
    if not chat.special_tokens.get("pad_token"):
        spare = (
            token for token in _PAD_TOKENS if token != eos and chat.backend.token_to_id(token) is not None
        )
        changes["pad_token"] = next(spare, eos)
    return changes


def _stop_token_ids(chat: ChatTokenizer, wanted: _Wanted) -> list[int]:
    texts = (*wanted.stop_words, chat.template.end_of_turn.strip())
    ids = {chat.backend.token_to_id(text) for text in texts if text} | {chat.eos_id}
    return sorted(token for token in ids if token is not None)


def _write_generation_config(model: Path, folder: Path, stop_token_ids: list[int]) -> None:
    """The model's own, with all that ends an answer, where that says less: who generates with the trained
    model looks there, not at the tokenizer."""
    config = read_json(model / "generation_config.json")
    declared = config.get("eos_token_id", read_json(model / "config.json").get("eos_token_id"))
    known = declared if isinstance(declared, list) else [] if declared is None else [declared]
    if not set(stop_token_ids) <= set(known):
        ids = [*known, *(token for token in stop_token_ids if token not in known)]
        _write_json(folder / "generation_config.json", config | {"eos_token_id": ids})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
