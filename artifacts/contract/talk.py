"""What to talk to, as the launcher tells it to the process that answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from artifacts.contract.codec import canonical_json

_PATHS = ("folder", "adapter", "gguf", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Exactly one of `folder` (a model, of any precision or GPTQ) and `gguf` (a file).

    `adapter`: a PEFT adapter on top of `folder`. `tokenizer`: the folder of the tokenizer and chat template
    that prompts are written with; None: the model's own. `form`: what it is, for people: `merged model`.
    """

    name: str  # as API and terminal call it: a run id, a folder's name
    folder: Path | None = None
    adapter: Path | None = None
    gguf: Path | None = None
    tokenizer: Path | None = None
    trust_remote_code: bool = False
    form: str = "model"

    def to_json(self) -> str:
        fields = asdict(self)
        return canonical_json(
            fields | {name: str(fields[name]) for name in _PATHS if fields[name] is not None}
        ).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Source:
        """Raises ValueError or TypeError for what is no source."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("a source is an object of JSON")
        source = cls(
            **{name: Path(fields[name]) for name in _PATHS if fields.get(name)}
            | {name: value for name, value in fields.items() if name not in _PATHS}
        )
        if (source.folder is None) == (source.gguf is None):
            raise ValueError("a source has either a folder or a gguf")
        return source
