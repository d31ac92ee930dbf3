"""Every engine's answers beside those of transformers' `generate`, on models made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.contract import Source
from tests.local import serving_models
from tests.train import method_cases
from tests.train.chat_templates import chat
from tests.train.method_cases import ADAPTERS, TRAINED_TOKENS
from train import methods, weights
from train.methods import Tokens
from train.stage import StageUserError
from train.talk.engine import Engine, Piece, PromptError, Sampling
from train.talk.source import open_engine

pytestmark = pytest.mark.products

Open = Callable[[str], Engine]
PROMPTS = ("what is it", "tell me more", "安", "a b c d", "thththth")
ENGINES = ("model", "adapter", "gptq", "gguf", "gguf alone")
GREEDY = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving_models.write_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def open_one(base: Path) -> Iterator[Open]:
    """The engine of one of ENGINES; each is loaded once."""
    folder = base.parent
    gguf = folder / "base.gguf"
    make: dict[str, Callable[[], Source]] = {
        "model": lambda: Source(name="model", folder=base),
        "adapter": lambda: Source(
            name="adapter", folder=base, adapter=serving_models.write_adapter(base, folder / "adapter")
        ),
        "gptq": lambda: Source(name="gptq", folder=serving_models.write_gptq_model(base, folder / "gptq")),
        "gguf": lambda: Source(name="gguf", gguf=gguf, tokenizer=base),
        "gguf alone": lambda: Source(name="gguf", gguf=gguf),
    }
    serving_models.write_gguf(base, gguf)
    engines: dict[str, Engine] = {}

    def get(name: str) -> Engine:
        if name not in engines:
            engines[name] = open_engine(make[name](), device="cpu", precision="fp32")
        return engines[name]

    yield get
    for engine in engines.values():
        engine.close()


def text_of(pieces: Iterator[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def generated(model: Any, base: Path, prompt: list[int], count: int = 24) -> str:
    """What transformers' `generate` answers greedily; `base` holds the tokenizer."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
    ids = torch.tensor([prompt])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    made = model.eval().generate(
        input_ids=ids, max_new_tokens=count, do_sample=False, eos_token_id=end, pad_token_id=0
    )[0]
    text: str = tokenizer.decode(made[-count:], skip_special_tokens=True)
    return text


def reference_model(name: str, base: Path) -> Any:
    """As transformers loads it; the model folder stands for the GGUF file made of it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = base.parent / "gptq" if name == "gptq" else base
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(model, base.parent / "adapter") if name == "adapter" else model


@pytest.mark.parametrize("name", ENGINES)
def test_greedy_answers_are_those_of_generate(base: Path, open_one: Open, name: str) -> None:
    engine = open_one(name)
    model = reference_model(name, base)
    answers = []
    for prompt in PROMPTS:
        ids = engine.encode_chat(chat(prompt))
        assert ids == open_one("model").encode_chat(chat(prompt))
        answers.append(text_of(engine.stream(ids, GREEDY)))
        assert answers[-1] == generated(model, base, ids)
    assert len(set(answers)) == len(PROMPTS), "they say something"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_every_method(tmp_path: Path, base: Path, name: str) -> None:
    """Two turns, the second with what the cache keeps of the first."""
    params = ADAPTERS[name]
    torch.manual_seed(0)
    trained = TRAINED_TOKENS if params.lora and params.lora.trainable_tokens else {}
    model = methods.apply(method_cases.load(base), params, Tokens(trained=trained))
    method_cases.disturb(model)
    folder = tmp_path / "final"
    weights.write_adapter(
        model, folder, base_name="org/base", base_revision="c0ffee", writes=True, for_base=True
    )
    reference = methods.load_adapter(method_cases.load(base), folder)
    engine = open_engine(
        Source(name="bot", folder=base, adapter=folder, tokenizer=base), device="cpu", precision="fp32"
    )
    said = chat("what is it")
    for question in ("and more", "why"):
        ids = engine.encode_chat(said)
        answer = text_of(engine.stream(ids, GREEDY))
        assert answer == generated(reference, base, ids)
        said = [*said, *chat(answer, question)]
    untrained = generated(method_cases.load(base), base, engine.encode_chat(chat("what is it")))
    assert said[1]["content"] != untrained or name == "trained tokens"
    engine.close()


@pytest.mark.parametrize("name", ENGINES)
def test_later_turns_compute_only_what_is_new(open_one: Open, name: str) -> None:
    engine = open_one(name)
    model = engine._model  # type: ignore[attr-defined]
    said = chat("what is it")
    model.keep(0)
    answer = text_of(engine.stream(engine.encode_chat(said), GREEDY))
    read = list(model.read)
    fed: list[int] = []
    feed = model.feed

    def counting(tokens: Any) -> Any:
        fed.extend(tokens)
        return feed(tokens)

    model.feed = counting
    try:
        second = engine.encode_chat([*said, *chat(answer, "why", "x")][:3])
        warm = text_of(engine.stream(second, GREEDY))
    finally:
        del model.feed
    assert second[: len(read)] == read, "the answer's last token is not read yet"
    assert fed[: len(second) - len(read)] == second[len(read) :]
    model.keep(0)
    assert text_of(engine.stream(second, GREEDY)) == warm, "as computed from nothing"


@pytest.mark.parametrize("name", ("model", "gguf"))
def test_closing_ends_the_computation(open_one: Open, name: str) -> None:
    engine = open_one(name)
    prompt = engine.encode_chat(chat("what is it"))
    whole = text_of(engine.stream(prompt, GREEDY))
    stream = engine.stream(prompt, Sampling())
    first = [next(stream) for _ in range(3)]
    stream.close()
    assert len(engine._model.read) <= len(prompt) + 3  # type: ignore[attr-defined]
    assert whole.startswith("".join(piece.text for piece in first))
    assert text_of(engine.stream(prompt, GREEDY)) == whole


@pytest.mark.parametrize("name", ("model", "gguf", "gguf alone"))
def test_prompts_that_are_too_long(open_one: Open, name: str) -> None:
    engine = open_one(name)
    with pytest.raises(PromptError, match="context holds 512"):
        engine.stream(engine.encode_chat(chat("a" * 600)), GREEDY)
    *_, last = engine.stream(engine.encode_chat(chat("a" * 480)), Sampling())
    assert last.finish_reason == "length"


@pytest.mark.parametrize("name", ("model", "gguf"))
def test_the_seed_decides(open_one: Open, name: str) -> None:
    engine = open_one(name)
    prompt = engine.encode_chat(chat("what is it"))
    first, again, other = (
        text_of(engine.stream(prompt, Sampling(max_new_tokens=24, temperature=2.0, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("name", ("model", "gguf", "gguf alone"))
def test_stop_texts_over_several_tokens(open_one: Open, name: str) -> None:
    engine = open_one(name)
    prompt = engine.encode_chat(chat("what is it"))
    whole = text_of(engine.stream(prompt, GREEDY))
    pieces = list(engine.stream(prompt, Sampling(max_new_tokens=24, stop=[whole[5:8]])))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(whole[5:8])]
    assert pieces[-1].finish_reason == "stop"


def test_what_can_not_be_loaded(tmp_path: Path, base: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(StageUserError, match=r"broken.gguf: llama.cpp can't load it"):
        open_engine(Source(name="x", gguf=tmp_path / "broken.gguf"))
    other = tmp_path / "model"
    serving_models.write_tokenizer(other)
    (other / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(StageUserError, match=r"the model can't be loaded: .*nonsense"):
        open_engine(Source(name="x", folder=other), device="cpu")
