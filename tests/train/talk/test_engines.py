"""Every engine's answers beside those of transformers' `generate`, on models made on the spot."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Source
from tests.local import serving_models
from tests.train.chat_templates import chat
from train.talk.engine import Engine, Piece, PromptError, Sampling
from train.talk.source import open_engine

pytestmark = pytest.mark.products

PROMPTS = ("what is it", "tell me more", "安", "a b c d", "thththth")
TOKENS = 24
GREEDY = Sampling(max_new_tokens=TOKENS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving_models.write_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def sources(base: Path) -> dict[str, Source]:
    adapter = serving_models.write_adapter(base, base.parent / "adapter")
    gptq = serving_models.write_gptq_model(base, base.parent / "gptq")
    gguf = serving_models.write_gguf(base, base.parent / "base.gguf")
    return {
        "model": Source(name="model", folder=base),
        "adapter": Source(name="adapter", folder=base, adapter=adapter, tokenizer=base),
        "gptq": Source(name="gptq", folder=gptq),
        "gguf": Source(name="gguf", gguf=gguf, tokenizer=base),
        "gguf alone": Source(name="gguf alone", gguf=gguf),
    }


@pytest.fixture(scope="module")
def open_one(sources: dict[str, Source]) -> Iterator[Any]:
    """`open_one(name)`: the engine of a source, loaded once."""
    engines: dict[str, Engine] = {}

    def get(name: str) -> Engine:
        if name not in engines:
            engines[name] = open_engine(sources[name], device="cpu", precision="fp32")
        return engines[name]

    yield get
    for engine in engines.values():
        engine.close()


ENGINES = ("model", "adapter", "gptq", "gguf", "gguf alone")


def text_of(pieces: Iterator[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@functools.cache
def reference(source: Source) -> list[str]:
    """What transformers says to `PROMPTS`; to a GGUF file what it says of the folder beside it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = source.folder or source.gguf.parent / "base"  # type: ignore[union-attr]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if source.adapter is not None:
        model = PeftModel.from_pretrained(model, source.adapter)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source.tokenizer or folder) + "/tokenizer.json") if (
        source.gguf is None or source.tokenizer
    ) else PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.chat_template = (folder / "chat_template.jinja").read_text()
    answers = []
    for prompt in PROMPTS:
        ids = tokenizer.apply_chat_template(chat(prompt), add_generation_prompt=True, return_tensors="pt")
        ids = ids if torch.is_tensor(ids) else ids["input_ids"]
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        made = model.eval().generate(ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=end, pad_token_id=0)
        answers.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    return answers
