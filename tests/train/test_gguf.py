"""Models of every family through llama.cpp's own converter, loaded again and asked."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer, normalizers

from artifacts.contract import GgufParams, StageKind, TwinParams
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import MARKER, ArtifactWriter, read_marker, verify
from tests import plan_parts
from tests.train.backends import sentencepiece_backend
from tests.train.chat_templates import CHATML, chat
from tests.train.gguf_files.go_template import ollama
from train import gguf
from train.data.loading import load_chat_tokenizer
from train.stage import StageContext, StageError, StageUserError
from train.twin import make_twin, random_weights, twin_config

pytestmark = pytest.mark.products

EXAMPLES = Path(__file__).parents[2] / "examples"


@functools.cache
def texts() -> list[str]:
    return [line for path in sorted(EXAMPLES.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def twin(folder: Path, architecture: str, tokenizer: Tokenizer | None = None, **dimensions: Any) -> Path:
    """A model of random weights; `tokenizer` replaces its own, with BOS and EOS called as in Llama 2."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "layers": 3, **dimensions}
    params = TwinParams(architecture=architecture, **sizes)
    folder.mkdir(parents=True)
    for name, data in make_twin(params, texts()).items():
        (folder / name).write_bytes(data)
    if tokenizer is not None:
        config = twin_config(params, tokenizer) | {"eos_token_id": tokenizer.token_to_id("</s>")}
        (folder / "config.json").write_text(json.dumps(config))
        weights = dict(random_weights(config, 0))
        safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(folder / "tokenizer.json"))
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        names |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps(names))
        (folder / "chat_template.jinja").write_text("{{ bos_token }}" + CHATML)
        (folder / "generation_config.json").write_text("{}")
    return folder


def context_of(model: Path, root: Path, *types: str, system: str | None = None) -> StageContext:
    store = LocalStore(root / "store")
    writer = ArtifactWriter(store, "merged/key")
    writer.add_folder(model)
    writer.commit()
    params = GgufParams(name="bot", types=list(types), system=system)  # type: ignore[arg-type]
    stage = plan_parts.stage(StageKind.GGUF, params, model="merged/key")
    return StageContext(
        plan=plan_parts.plan(store, [stage]),
        run_id="run",
        stage=stage,
        store=store,
        work=root / "work",
        events=Events(store, "run", "gguf"),
    )


def convert(model: Path, root: Path, *types: str, system: str | None = None) -> Path:
    """The folder of the artifact."""
    context = context_of(model, root, *types, system=system)
    gguf.run(context)
    return root / "store" / context.stage.output


def assert_nothing_made(context: StageContext) -> None:
    assert read_marker(context.store, context.stage.output) is None
    assert not list((context.store.root / "gguf").rglob(MARKER))


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_llama_cpp_answers_as_transformers_does(architecture: str, tmp_path: Path) -> None:
    tied = architecture != "llama"
    model = twin(tmp_path / "model", architecture, tie_embeddings=tied)
    context = context_of(model, tmp_path, "f16", "q8_0", "q4_k_m")
    gguf.run(context)
    folder = tmp_path / "store/gguf/key"
    manifest = read_marker(context.store, "gguf/key")
    assert manifest is not None and verify(context.store, "gguf/key") == []
    names = {f"bot-{kind}.gguf": folder / f"bot-{kind}.gguf" for kind in ("f16", "q8_0", "q4_k_m")}
    assert manifest.facts["files"] == {name: path.stat().st_size for name, path in names.items()}
    assert manifest.facts["same_tokens"] is True
    assert manifest.facts["same_answers"]["f16"] >= 0.9  # the rest parts at a near-tie, or the stage fails
    told = json.loads((folder / "gguf.json").read_bytes())
    assert told["same_tokens"]["texts"] > 500
    drift = {kind: told["types"][kind]["drift"] for kind in ("f16", "q8_0", "q4_k_m")}
    assert drift["f16"] < 0.003 < drift["q8_0"] < 0.06 < drift["q4_k_m"]
    assert set(told["types"]["q4_k_m"]["tensors"]) == {"Q4_K", "Q6_K"}
    sizes = [path.stat().st_size for path in names.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert not (tmp_path / "work/gguf").exists()


def test_the_artifact_is_all_that_a_chat_needs(tmp_path: Path) -> None:
    from llama_cpp import Llama

    model = twin(tmp_path / "model", "qwen3", layers=1)
    folder = convert(model, tmp_path, "q8_0", system="Be brief.")
    assert not (folder / "bot-f16.gguf").exists()  # was made, was not asked for
    tokenizer = load_chat_tokenizer(folder / "tokenizer")
    assert tokenizer.sha256 == load_chat_tokenizer(model).sha256
    assert (folder / "tokenizer/chat_template.jinja").read_bytes() == (
        model / "chat_template.jinja"
    ).read_bytes()
    text = (folder / "Modelfile").read_text()
    assert re.search(r"^FROM \./bot-q8_0\.gguf$", text, re.M) and 'SYSTEM """Be brief."""' in text
    template = re.search(r'^TEMPLATE """(.*?)"""$', text, re.M | re.S)
    assert template is not None
    # What Ollama would run, against apply_chat_template, as tokens that llama.cpp makes of it.
    from transformers import AutoTokenizer

    messages = chat("¿Qué hora es?", "Es la una. 🕐", "Danke\n", system="Be brief.")
    expected = AutoTokenizer.from_pretrained(model).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    loaded = Llama(str(folder / "bot-q8_0.gguf"), vocab_only=True, verbose=False)
    written = ollama(template[1], messages).encode()
    assert loaded.tokenize(written, add_bos=loaded._model.add_bos_token(), special=True) == expected


@pytest.mark.parametrize("legacy", [False, True])
def test_a_sentencepiece_vocabulary(legacy: bool, tmp_path: Path) -> None:
    """As Llama 2 and Mistral have them, without the tokenizer.model; legacy: a blank before every stretch of
    words, else before a text alone."""
    backend = sentencepiece_backend()
    if legacy:
        blanks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(blanks)
    saved = json.loads(backend.to_str())
    saved["pre_tokenizer"] = None if legacy else saved["pre_tokenizer"]
    no_bytes = [token for token in saved["added_tokens"] if not token["content"].startswith("<0x")]
    backend = Tokenizer.from_str(json.dumps(saved | {"added_tokens": no_bytes}))
    model = twin(tmp_path / "model", "llama", layers=1, tie_embeddings=False, tokenizer=backend)
    folder = convert(model, tmp_path, "f16")
    assert json.loads((folder / "gguf.json").read_bytes())["types"]["f16"]["same"] >= 9


def test_weights_that_16_bits_do_not_hold_make_no_file(tmp_path: Path) -> None:
    model = twin(tmp_path / "model", "llama", layers=1)
    path = model / "model.safetensors"
    tensors = dict(safetensors.numpy.load_file(path))
    name = "model.layers.0.mlp.gate_proj.weight"
    tensors[name] = tensors[name] * np.float32(1e6)
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    context = context_of(model, tmp_path, "f16")
    with pytest.raises(StageError, match="nothing was written"):
        gguf.run(context)
    assert_nothing_made(context)


def test_other_tokens_make_no_file(tmp_path: Path) -> None:
    """A tokenizer that splits like none of llama.cpp's, though its maker says otherwise."""
    model = twin(tmp_path / "model", "qwen2", layers=1)
    tokenizer = json.loads((model / "tokenizer.json").read_bytes())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"[a-z]|[^a-z]+"
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((model / "tokenizer_config.json").read_bytes())
    (model / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    context = context_of(model, tmp_path, "f16")
    with pytest.raises(StageError, match="other tokens than the model was trained with"):
        gguf.run(context)
    assert_nothing_made(context)
    del config["pre_tokenizer"]
    (model / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    with pytest.raises(StageUserError, match="is not known to llama"):
        gguf.run(context_of(model, tmp_path / "undeclared", "f16"))


def test_narrow_models_say_what_became_of_a_k_quant(tmp_path: Path) -> None:
    folder = convert(twin(tmp_path / "model", "qwen3", hidden_size=128, layers=1), tmp_path, "q4_k_m")
    told = json.loads((folder / "gguf.json").read_bytes())["types"]["q4_k_m"]
    assert any("ffn_down" not in name for name in told["other_types"])
    model = twin(tmp_path / "narrow", "qwen3", hidden_size=64, intermediate_size=96, layers=1)
    context = context_of(model, tmp_path / "second", "q4_k_m")
    with pytest.raises(StageUserError, match="q8_0"):
        gguf.run(context)
    assert_nothing_made(context)


@pytest.mark.parametrize("quantized", [True, False])
def test_refusals_come_before_any_work(quantized: bool, tmp_path: Path) -> None:
    model = twin(tmp_path / "model", "qwen3" if quantized else "bloom", layers=1)
    if quantized:
        config = json.loads((model / "config.json").read_bytes())
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        (model / "config.json").write_text(json.dumps(config))
    context = context_of(model, tmp_path, "f16")
    with pytest.raises(StageUserError, match="quantized" if quantized else "bloom"):
        gguf.run(context)
    assert not (tmp_path / "work").exists()
    assert_nothing_made(context)


def test_a_full_disk_leaves_the_artifact_before_untouched(tmp_path: Path) -> None:
    model = twin(tmp_path / "model", "qwen3", layers=1)
    folder = convert(model, tmp_path, "f16")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    again = context_of(model, tmp_path, "f16")
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    (tmp_path / "work").write_text("no folder can be made here")
    with pytest.raises(OSError):
        gguf.run(again)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
