"""The words that launcher and train share: kinds of stages, exit codes, and what a plan may say."""

from __future__ import annotations

import enum
from typing import Literal

# Exit codes of a stage process; `launcher.status` decides on them.
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_DRAINED = 75  # EX_TEMPFAIL of sysexits.h: stopped on request after saving, can be resumed

#: Labels of tokens that are not learnt (torch's cross entropy `ignore_index`).
IGNORED_LABEL = -100
#: Within `prepared/<key>/`: the tokenizer and chat template of everything that follows.
TOKENIZER_FOLDER = "tokenizer"

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
GgufType = Literal["f16", "q8_0", "q4_k_m"]  # llama.cpp's names
#: What can be published: the whole model, the adapter alone, its GPTQ form, its GGUF files.
Product = Literal["model", "adapter", "quantized", "gguf"]


class StageKind(enum.StrEnum):
    """Nodes of the plan's graph. Each kind's artifact lies at `<folder>/<key>/` in the store."""

    IMAGE = "image"
    DATA = "data"
    MODEL = "model"
    ORIGINAL = "original"  # the unquantized model of a base that is quantized; a model as any other
    ADAPTER = "adapter"  # one that was trained elsewhere
    PREPARE = "prepare"
    TRAIN = "train"
    MERGE = "merge"
    QUANTIZE = "quantize"
    GGUF = "gguf"
    PREDICT = "predict"
    PUBLISH = "publish"

    @property
    def folder(self) -> str:
        return {
            "image": "images",
            "model": "models",
            "original": "models",
            "adapter": "adapters",
            "prepare": "prepared",
            "merge": "merged",
            "quantize": "quantized",
            "predict": "predictions",
            "publish": "published",
        }.get(self.value, self.value)
