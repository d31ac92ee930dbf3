"""Parameters of the stages that bring things in: image, data, model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from artifacts.contract.words import RecordFormat


@dataclass(frozen=True, kw_only=True)
class ImageParams:
    """Stage `image`: the container images that the other stages run in; only where they run in containers.

    Output: no files; the marker's facts hold `pilot` and `train`, each a reference by digest
    (`registry/name@sha256:…`). `given`: the reference of an image that is there already.
    """

    repository: str = ""  # registry and path, without a tag
    base: str = ""  # reference of the image to start from
    flash_attention: bool = False
    architectures: list[str] = field(default_factory=list)  # CUDA compute capabilities ("9.0")
    gguf: bool = False  # llama.cpp is in it
    given: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file's records are read, beside their format.

    `columns`: the file's names of what formats call prompt, query, response, history, system, tools, messages
    and text; "" where it is not to be read, the format's own name where nothing is said. `tags`: the names
    inside a message of `conversations` (role_tag, content_tag) and of its roles (user_tag, assistant_tag,
    system_tag, observation_tag, function_tag), which are LLaMA-Factory's.
    """

    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    instruction: str = ""  # put before the question, in formats of a question and an answer
    fix_spacing: bool = False  # "ca n't ." -> "can't."


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One input file of a split, as the plan saw it: a path, or the address of a remote one (`s3://…`,
    `hub://…`), of which nothing but the pinned digest is known before it is fetched (size 0).

    Files of one `data_set` (a folder, a pattern) share its weight and limit.
    """

    path: str
    size_bytes: int
    sha256: str
    format: RecordFormat | Literal["auto"]
    reading: Reading = field(default_factory=Reading)
    data_set: int = 0  # its position among those of the split
    weight: float = 1.0  # how often its records pass per epoch
    limit_records: int | None = None  # of the data set: the first ones

    @property
    def is_remote(self) -> bool:
        return "://" in self.path


@dataclass(frozen=True, kw_only=True)
class DataParams:
    """Stage `data`: files in, validated conversations out.

    Output: `<split>-NNNNN.jsonl` shards, one record a line, and `report.json`
    (`artifacts.data_report.DataReport`). A record is a conversation or, for pre-training, a text:

        {"messages": [{"role", "content"}, …], "tools": [{"type": "function", "function": {…}}, …]}
        {"text": "…"}

    Roles are system, user, assistant and tool. A message may also hold `tool_calls`
    (`[{"type": "function", "function": {"name", "arguments": {…}}}]`; content is then "" where there is
    none), `reasoning_content` and `train` (false: this turn is not learnt). `tools` is left out where there
    are none.

    A file of the format `custom` is the only one of its split and has no shards: it is carried along as
    `custom.py`, the same for all splits, and run by the stage `prepare`.
    """

    splits: dict[str, list[DataFile]]  # "train", "eval", "test"
    on_error: Literal["stop", "skip"] = "stop"
    limit_records: int | None = None  # per split; a rehearsal takes a few
    eval_fraction: float | None = None  # of the training records, set aside as the split "eval"
    shuffle: bool = False  # the training records
    seed: int = 0  # of the shuffle and of what is set aside


@dataclass(frozen=True, kw_only=True)
class TwinParams:
    """A tiny twin: a real architecture, scaled-down dimensions, random weights.

    Its tokenizer is trained on the data stage's training records, or, when `of_source` is set (a rehearsal),
    copied from that model together with its config class and template.
    """

    architecture: str = "qwen3"  # "qwen3" | "llama"; ignored for a rehearsal
    hidden_size: int = 128
    intermediate_size: int = 256
    layers: int = 2
    attention_heads: int = 4
    key_value_heads: int = 2
    vocabulary_size: int = 1024  # upper bound for the trained tokenizer
    max_positions: int = 2048
    tie_embeddings: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelParams:
    """Stage `model`: a model folder (config, tokenizer, safetensors).

    `source` says what `location` is: `folder` an absolute path, used in place; `store` an artifact's URI;
    `hub` a repository id at the full `revision`; `twin` nothing. A twin with a `location` is a rehearsal's:
    `twin_of` tells where the original lies (`folder` | `hub` | `store`).
    """

    source: Literal["folder", "hub", "store", "twin"]
    location: str | None = None
    revision: str | None = None
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    sha256: str | None = None  # digest of the folder's manifest
    twin: TwinParams | None = None
    twin_of: Literal["folder", "hub", "store"] | None = None
    trust_remote_code: bool = False
