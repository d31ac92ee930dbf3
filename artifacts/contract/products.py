"""Parameters of the stages after training: what is made of a trained model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from artifacts.contract.words import GgufType, Precision, Product


@dataclass(frozen=True, kw_only=True)
class MergeParams:
    """Stage `merge`: a base model and an adapter, or trained weights, in; one model folder out.

    Its marker's facts hold `parameters` and, for an adapter, `drift`: how far the merged model's logits are
    from those of base and adapter (`train.merging.drift`). Above `max_drift` the stage fails.
    """

    max_shard_size_bytes: int = 5_000_000_000
    max_drift: float = 0.05


@dataclass(frozen=True, kw_only=True)
class QuantizeParams:
    """Stage `quantize`: a whole model in, its GPTQ form out (weights, config with `quantization_config`,
    tokenizer, template, generation config, remote code) with `quantization.json`: perplexity before, after.

    Calibration and perplexity use the prepared splits `train` and `eval` of its input `prepare`; without an
    eval split, training sequences that did not calibrate.
    """

    bits: Literal[4, 8] = 4
    group_size: int = 128  # input channels that share a scale; -1: all
    desc_act: bool = False  # columns in the order of falling activation
    damping: float = 0.05  # share of the Hessian's mean diagonal that is added to it
    calibration_sequences: int = 256
    calibration_length: int = 2048  # tokens of each, at most
    max_perplexity_increase: float = 0.25  # share of the perplexity before; above it the stage fails
    evaluation_sequences: int = 64
    seed: int = 0
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class GgufParams:
    """Stage `gguf`: a whole model in; a `<name>-<type>.gguf` for each type, a `Modelfile` for Ollama and
    `gguf.json` (what was checked) out."""

    name: str  # of the files: the job's
    types: list[GgufType] = field(default_factory=lambda: ["q4_k_m"])
    system: str | None = None  # the Modelfile's system prompt


@dataclass(frozen=True, kw_only=True)
class PredictParams:
    """Stage `predict`: answers of the base and the tuned model on the test split.

    Output: `predictions.jsonl` (`{"index", "prompt": [messages], "reference", "base", "tuned", "scores"}` a
    line; `scores` holds the ROUGE values of each answer, `{"tuned": {"rouge1", …}, …}`) and `scores.json`
    (`{"base": {"exact_match", "bleu4", "rouge1", "rouge2", "rougeL", "perplexity"}, "tuned": {…}, "records":
    n}`). Shares are 0 to 100; the perplexity is that of the references.
    """

    max_new_tokens: int = 128
    batch_size: int = 16
    limit_records: int | None = None
    base: bool = True  # also answer with the base model
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class PublishParams:
    """Stage `publish`: products of the run, with a model card, to a hub repository (`hub://org/name`) or a
    bucket (`s3://bucket/prefix`). Its inputs are named as the products, beside what the card tells of
    (`data`, `predict`, `train`). Output: `published.json`, where and as which revision."""

    to: str
    products: list[Product]
    private: bool = True
    license: str | None = None
