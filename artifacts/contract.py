"""What the launcher and the training code say to each other: the plan, as stdlib dataclasses.

The launcher writes a `Plan` as canonical JSON; every stage process reads it back with `Plan.from_json` and
finds its own `StagePlan` in it. Neither side imports the other. Durations stay as the user wrote them
(epochs or steps): `prepare` knows the sequences per epoch, `train` turns them into steps.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

PLAN_VERSION = 1

# Exit codes of a stage process; `launcher.status` decides on them.
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_DRAINED = 75  # EX_TEMPFAIL of sysexits.h: stopped on request after saving, can be resumed

#: Labels of tokens that are not learnt (torch's cross entropy `ignore_index`).
IGNORED_LABEL = -100
#: Within `prepared/<key>/`: the tokenizer and chat template of everything that follows.
TOKENIZER_FOLDER = "tokenizer"

T = TypeVar("T")

RecordFormat = Literal[
    "messages",
    "conversations",  # ShareGPT's and Qwen's from/value
    "alpaca",
    "prompt_response",  # columns by name
    "text",  # continued pre-training
    "turns",  # text with `### Human:` and `### Assistant:`
    "dialogue",  # dialogue and summary
    "input_target",
    "jfleg",  # sentence and corrections
    "custom",  # a Python file's get_custom_dataset
]
Engine = Literal["torchrun", "ray"]
Method = Literal[
    "full", "partial", "lora", "prefix_tuning", "p_tuning_v2", "prompt_tuning", "llama_adapter", "ia3"
]
Quantization = Literal["none", "nf4", "int8", "gptq"]
Precision = Literal["bf16", "fp16", "fp32"]
Strategy = Literal["single", "ddp", "fsdp", "zero1", "zero2", "zero3"]
Offload = Literal["none", "optimizer", "params"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]
Attention = Literal["auto", "flash_attention_3", "flash_attention_2", "sdpa", "eager"]
TrainOn = Literal["assistant", "last", "all"]


class StageKind(enum.StrEnum):
    """Nodes of the plan's graph. Each kind's artifact lies at `<folder>/<key>/` in the store."""

    IMAGE = "image"
    DATA = "data"
    MODEL = "model"
    PREPARE = "prepare"
    TRAIN = "train"
    MERGE = "merge"
    PREDICT = "predict"

    @property
    def folder(self) -> str:
        return {
            "image": "images",
            "model": "models",
            "prepare": "prepared",
            "merge": "merged",
            "predict": "predictions",
        }.get(self.value, self.value)


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


@dataclass(frozen=True, kw_only=True)
class TemplateParams:
    """The chat template: the tokenizer's own, unless one of `name`, `jinja` and `pieces` is set."""

    name: str | None = None  # of `train.data.named_templates`
    jinja: str | None = None  # the template's source
    pieces: dict[str, str] | None = None  # system_prefix, system_suffix, user_prefix, …, observation_suffix
    default_system: str | None = None
    stop_words: list[str] = field(default_factory=list)  # each becomes one token, and ends an answer
    replace_eos: bool = False  # the first stop word becomes the tokenizer's EOS


@dataclass(frozen=True, kw_only=True)
class PrepareParams:
    """Stage `prepare`: conversations in, packed token sequences out.

    Output: `<split>-NNNNN.arrow` (Arrow IPC file) with the columns `input_ids`, `labels` (list<int32>,
    `IGNORED_LABEL` where nothing is learnt) and `document_lengths` (list<int32>, sums to the row's length:
    position ids restart there), one row a sequence; `statistics.json` (`train.data.statistics`); and
    `tokenizer/`, the tokenizer with the chat template that made them, which is what everything after it uses
    and what is saved with the model. Unpacked: one document a row.
    """

    max_length: int  # tokens
    packing: bool
    seed: int = 0
    template: TemplateParams = field(default_factory=TemplateParams)
    train_on: TrainOn = "assistant"


@dataclass(frozen=True, kw_only=True)
class LoraParams:
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"  # a list of names, "all-linear" or a regular expression
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "pissa", "olora", "loftq"] = "default"
    plus_ratio: float | None = None  # LoRA+: learning rate of B over that of A
    modules_to_save: list[str] = field(default_factory=list)  # trained whole beside the adapters
    trainable_tokens: list[str] = field(default_factory=list)  # whose embedding rows alone are trained


@dataclass(frozen=True, kw_only=True)
class PartialParams:
    """Method `partial`: which of the model's own weights are trained, or the blocks added behind them."""

    head: bool = False
    last_layers: int = 0
    extra_layers: int = 0  # zero-initialised decoder blocks, appended


@dataclass(frozen=True, kw_only=True)
class PromptParams:
    """Methods `prefix_tuning`, `p_tuning_v2`, `prompt_tuning` (virtual tokens) and `llama_adapter`."""

    virtual_tokens: int = 20
    projection_size: int | None = None  # width of the MLP that makes the prefixes; None: trained themselves
    adapter_layers: int | None = None  # llama_adapter: topmost layers that get one; None: all but two


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """Stage `train`. `epochs` or `steps` is set, never both; so with the two batch sizes of the job, which
    the plan has already turned into `micro_batch_size × gradient_accumulation_steps × world_size`."""

    method: Method
    lora: LoraParams | None
    epochs: float | None
    steps: int | None
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup_steps: int | None
    warmup_share: float | None  # of all steps
    weight_decay: float
    max_grad_norm: float
    micro_batch_size: int  # sequences per worker and forward pass
    gradient_accumulation_steps: int
    world_size: int  # ranks = workers
    max_length: int  # tokens per sequence
    precision: Precision
    gradient_checkpointing: bool
    seed: int
    evaluate_every: float | None  # < 1: share of an epoch; >= 1: steps; None: at each epoch's end
    save_every: float | None
    log_every_steps: int
    keep: int  # checkpoints
    strategy: Strategy
    offload: Offload
    sharding: Literal["full", "hybrid"] = "full"  # fsdp: over all ranks, or over those of a node
    partial: PartialParams | None = None
    prompt: PromptParams | None = None
    quantization: Quantization = "none"  # of the frozen base
    optimizer: Optimizer = "adamw"
    attention: Attention = "auto"
    neftune_alpha: float | None = None
    label_smoothing: float = 0.0
    early_stopping: int | None = None  # evaluations without improvement
    best_model: bool = False  # final/ is the checkpoint with the lowest evaluation loss
    accelerator: str | None = None  # name in the catalog, for MFU; None on CPU
    peak_flops_per_second: float | None = None  # dense, at `precision`, of one accelerator
    fresh: str | None = None  # salt of `submit --fresh`: another key on purpose

    @property
    def sequences_per_step(self) -> int:
        """The global batch size."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.world_size


@dataclass(frozen=True, kw_only=True)
class MergeParams:
    max_shard_size_bytes: int = 5_000_000_000


@dataclass(frozen=True, kw_only=True)
class PredictParams:
    """Stage `predict`: answers of the base and the tuned model on the test split.

    Output: `predictions.jsonl` (`{"index", "prompt": [messages], "reference", "base", "tuned"}` a line) and
    `scores.json` (`{"base": {"exact_match", "bleu4", "rouge1", "rouge2", "rougeL", "perplexity"}, "tuned":
    {…}, "records": n}`, shares as 0 to 100; the perplexity is that of the references).
    """

    max_new_tokens: int = 128
    batch_size: int = 16
    limit_records: int | None = None
    base: bool = True  # also answer with the base model
    precision: Precision = "fp32"


PARAMS: dict[StageKind, type] = {
    StageKind.IMAGE: ImageParams,
    StageKind.DATA: DataParams,
    StageKind.MODEL: ModelParams,
    StageKind.PREPARE: PrepareParams,
    StageKind.TRAIN: TrainParams,
    StageKind.MERGE: MergeParams,
    StageKind.PREDICT: PredictParams,
}

Params = ImageParams | DataParams | ModelParams | PrepareParams | TrainParams | MergeParams | PredictParams


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One node: `inputs` names the artifacts it reads (`{"model": "models/<key>", …}`), `output` the one it
    makes. The artifact exists once `<output>/COMPLETE.json` does."""

    kind: StageKind
    key: str
    inputs: dict[str, str]
    output: str
    params: Any  # the kind's dataclass in PARAMS


def original_prefix(stage: StagePlan) -> str:
    """Where a rehearsal finds config, tokenizer and code of the model that its twin is made after, unless it
    reaches that model itself; an artifact of its own."""
    return f"{stage.output}/original"


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A value that the job left out, and what it was derived from."""

    field: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """job + cluster, everything resolved. Its digest (SHA-256 of the canonical JSON) names the run."""

    name: str
    cluster: str
    backend: Literal["local", "kubernetes"]
    store: str  # URI: file:///… or s3://…
    engine: Engine
    stages: list[StagePlan]
    job: dict[str, Any]  # the job as resolved, for people and the report
    derived: list[Derived] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)  # the cluster profile, for whoever starts pods
    version: int = PLAN_VERSION

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def run_id(self) -> str:
        return f"{self.name}-{self.digest[:8]}"

    def stage(self, kind: StageKind | str) -> StagePlan:
        return next(stage for stage in self.stages if stage.kind == kind)

    def to_json(self) -> bytes:
        return canonical_json(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> Plan:
        """Raises ValueError or TypeError for what is no plan of this version."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("not a plan: no JSON object")
        if data.get("version") != PLAN_VERSION:
            raise ValueError(f"plan version {data.get('version')} is not {PLAN_VERSION}: make the plan again")
        plan = decode(cls, data)
        stages = [
            dataclasses.replace(stage, params=decode(PARAMS[stage.kind], stage.params))
            for stage in plan.stages
        ]
        return dataclasses.replace(plan, stages=stages)


def canonical_json(value: Any) -> bytes:
    """The one rendering that digests are made from: sorted keys, no spaces, UTF-8, no NaN."""
    plain = (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
    )
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def decode(cls: type[T], data: Any) -> T:
    """Build the dataclass `cls` from plain JSON values. Raises TypeError or ValueError naming the field."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__}: {data!r:.60} is not an object")
    types_ = _field_types(cls)  # type: ignore[arg-type]
    unknown = sorted(data.keys() - types_.keys())
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown field {unknown[0]!r}")
    return cls(
        **{name: _decode_value(types_[name], value, f"{cls.__name__}.{name}") for name, value in data.items()}
    )


@functools.cache  # a manifest has one entry per file, and resolving annotations costs more than all else
def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls)}


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where}: {value!r:.60} is none of {', '.join(map(repr, args))}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    wanted: Any = (int, float) if hint is float else (origin or hint)
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"{where}: {value!r:.60} is not of type {getattr(hint, '__name__', hint)}")
    if origin is list:
        return [_decode_value(args[0], item, where) for item in value]
    if origin is dict:
        return {key: _decode_value(args[1], item, where) for key, item in value.items()}
    return value


def _decode_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first of the types that fits."""
    if value is None and type(None) in choices:
        return None
    concrete = [choice for choice in choices if choice is not type(None)]
    for choice in concrete[:-1]:
        try:
            return _decode_value(choice, value, where)
        except (TypeError, ValueError):
            continue
    return _decode_value(concrete[-1], value, where)
