"""Ollama's `Modelfile`: which file, how a conversation is written, when an answer ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.data.loading import load_chat_tokenizer, read_json, saved_template
from train.data.tokenize import ChatTokenizer
from train.gguf_files.ollama_template import Pieces, find_pieces

#: Ollama reserves memory for the whole context, so a model's own (128k and more) is not what it starts with.
MAX_CONTEXT = 8192
#: generation_config.json's names, and Ollama's.
_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "repetition_penalty": "repeat_penalty",
}
#: Templates that write today's date: pieces would hold the day of the conversion.
DATE = "strftime_now"
#: The file that `FROM` names, of those that there are: the first of these.
_PREFERRED = ("q4_k_m", "q8_0", "f16")


@dataclass(frozen=True)
class Model:
    """What a Modelfile tells of a model folder. `template`: the chat template's source, "" without one."""

    tokenizer: ChatTokenizer
    template: str
    config: Mapping[str, Any]
    generation: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Model:
        return cls(
            load_chat_tokenizer(folder),
            saved_template(folder, read_json(folder / "tokenizer_config.json")) or "",
            read_json(folder / "config.json"),
            read_json(folder / "generation_config.json"),
        )


def modelfile(
    files: Mapping[str, str],
    model: Model,
    *,
    system: str | None,
    adds_bos: bool,
) -> str:
    """`files`: file name by type. `adds_bos`: llama.cpp puts BOS before a prompt itself."""
    tokenizer = model.tokenizer
    chosen = next(kind for kind in _PREFERRED if kind in files)
    others = [name for kind, name in files.items() if kind != chosen]
    lines = [f"# Also here: {', '.join(others)}"] if others else []
    lines.append(f"FROM ./{files[chosen]}")
    pieces = None if DATE in model.template else find_pieces(tokenizer.template)
    if pieces is None:
        lines.append("# The chat template can't be written in Go: the GGUF file holds it as it is (Jinja).")
    else:
        bos = tokenizer.special_tokens.get("bos_token", "") if adds_bos else ""
        lines.append(f"TEMPLATE {_quoted(pieces.go(bos=bos))}")
    if system and '"""' in system:
        lines.append('# The system prompt holds """, which no Modelfile can: give it with each request.')
    elif system and pieces is not None and pieces.system is None:
        lines.append("# The chat template has no place for a system prompt.")
    elif system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stop_words(model, pieces)]
    length = model.config.get("max_position_embeddings") or MAX_CONTEXT
    if length > MAX_CONTEXT:
        lines.append(f"# The model reads up to {length} tokens; a longer context takes more memory.")
    lines.append(f"PARAMETER num_ctx {min(length, MAX_CONTEXT)}")
    lines += _sampling(model.generation)
    return "\n".join(lines) + "\n"


def stop_words(model: Model, pieces: Pieces | None) -> Sequence[str]:
    """What ends a turn, by the template and as the model declares it, and what begins the next question: a
    model that writes that is talking to itself."""
    tokenizer = model.tokenizer
    end = tokenizer.template.end_of_turn.strip()
    declared = model.generation.get("eos_token_id")
    ids = declared if isinstance(declared, list) else [tokenizer.eos_id if declared is None else declared]
    words = [end, *(tokenizer.backend.id_to_token(each) for each in ids if each is not None)]
    begins = pieces.question.strip() if pieces else ""
    for word in (end, tokenizer.special_tokens.get("bos_token", "")):
        begins = begins.removeprefix(word).strip()
    return [word for word in dict.fromkeys([*words, begins]) if word and '"""' not in word]


def _sampling(generation: Mapping[str, Any]) -> list[str]:
    """How the model's makers want it sampled."""
    if not generation.get("do_sample"):
        return []
    given = {ours: generation.get(theirs) for theirs, ours in _SAMPLING.items()}
    return [f"PARAMETER {name} {value}" for name, value in given.items() if value is not None]


def _quoted(text: str) -> str:
    return f'"""{text}"""'
