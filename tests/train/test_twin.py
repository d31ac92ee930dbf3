import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from artifacts.contract import TwinParams
from tests.train.chat_templates import CONVERSATIONS
from tests.train.stage_inputs import TWIN
from train.data.loading import loads_as_saved
from train.twin import make_twin
from train.twin_architectures import ARCHITECTURES

TEXTS = [message["content"] for messages in CONVERSATIONS.values() for message in messages]


def write_twin(folder, **params):
    params = TwinParams(**{"hidden_size": 32, "intermediate_size": 48, "vocabulary_size": 400} | params)
    folder.mkdir(exist_ok=True)
    for name, content in make_twin(params, TEXTS).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_every_weight_and_generates(tmp_path, architecture, tied):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_twin(tmp_path, architecture=architecture, tie_embeddings=tied)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert type(model).__name__ == ARCHITECTURES[architecture].model_class
    assert model.dtype == torch.float32
    saved = safetensors.numpy.load_file(folder / "model.safetensors")
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    assert set(state) - set(saved) == ({"lm_head.weight"} if tied else set())
    fresh = type(model)(model.config).state_dict()  # what transformers starts norms and biases with
    assert all(np.array_equal(fresh[name].numpy(), saved[name]) for name in saved if saved[name].ndim == 1)
    assert all(np.array_equal(state[name], saved[name]) for name in saved)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token != tokenizer.eos_token == "<|im_end|>"
    assert len(tokenizer) == model.config.vocab_size <= 400
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    inputs = tokenizer.apply_chat_template(
        CONVERSATIONS["plain"][:1], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**inputs, max_new_tokens=3).shape[1] > inputs["input_ids"].shape[1]


def test_the_tokenizer_is_the_same_with_and_without_transformers(tmp_path):
    from transformers import AutoTokenizer

    folder = write_twin(tmp_path)
    assert loads_as_saved(folder, json.loads((folder / "tokenizer_config.json").read_bytes()))
    loaded = json.loads(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())
    saved = json.loads((folder / "tokenizer.json").read_bytes())
    assert loaded["model"]["vocab"] == saved["model"]["vocab"]
    assert loaded["model"]["merges"] == saved["model"]["merges"]
    assert {name: loaded[name] for name in ("pre_tokenizer", "normalizer", "decoder", "added_tokens")} == {
        name: saved[name] for name in ("pre_tokenizer", "normalizer", "decoder", "added_tokens")
    }


def test_what_transformers_saves_again_keeps_the_declared_pre_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(write_twin(tmp_path / "a")).save_pretrained(tmp_path / "b")
    assert json.loads((tmp_path / "b/tokenizer_config.json").read_bytes())["pre_tokenizer"] == "qwen2"


def test_seed_and_sizes_decide_the_weights():
    twin = make_twin(TWIN, TEXTS)
    assert twin == make_twin(TWIN, TEXTS)
    other = make_twin(TwinParams(hidden_size=32, intermediate_size=64, vocabulary_size=400, seed=1), TEXTS)
    assert {name for name in twin if twin[name] != other[name]} == {"model.safetensors"}
    weights = safetensors.numpy.load(twin["model.safetensors"])
    matrix = weights["model.layers.0.mlp.gate_proj.weight"]
    assert matrix.std() == pytest.approx(32**-0.5, rel=0.05)
    assert abs(matrix.mean()) < 0.01


PRINT_DIGEST = """
import hashlib, sys
from tests.train.test_twin import TEXTS, TWIN, make_twin
print(hashlib.sha256(b"".join(make_twin(TWIN, TEXTS).values())).hexdigest())
"""


def test_the_bytes_do_not_depend_on_threads_or_hash_seeds():
    digests = set()
    for threads, hash_seed in (("1", "0"), ("4", "1")):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", PRINT_DIGEST]
        digests.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(digests) == 1


def test_a_twin_imports_neither_torch_nor_transformers():
    script = (
        "import sys, train.model, train.twin; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
