import json

import pytest

import train.model
from artifacts.contract import ModelParams, StageKind, TwinParams
from artifacts.local import LocalStore
from artifacts.manifest import Manifest, read_marker, verify, write_marker
from tests.train.chat_templates import TEMPLATES
from tests.train.stage_inputs import TWIN, put_data, stage_context
from tests.train.test_twin import TEXTS
from train.rehearsal import representative_layers, shrink
from train.stage import StageUserError
from train.twin import make_twin

#: Configs in the sizes of real models, and what must be left after shrinking.
CONFIGS = {
    "Qwen3Config": (
        {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
        {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2},
    ),
    "LlamaConfig": (
        {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_size": 4096},
        {"num_attention_heads": 4, "num_key_value_heads": 4},
    ),
    "GemmaConfig": (
        {"num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256},
        {"num_key_value_heads": 1},
    ),
    "Gemma3TextConfig": (
        {"num_hidden_layers": 12, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2},
        {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2},
    ),
    "Qwen3MoeConfig": (
        {"num_hidden_layers": 48, "num_experts": 128, "num_experts_per_tok": 8},
        {"num_experts": 4, "num_experts_per_tok": 2},
    ),
    "MixtralConfig": ({"num_local_experts": 8}, {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "GPT2Config": ({"n_layer": 12, "n_head": 12}, {"n_layer": 2, "n_head": 4, "n_embd": 32}),
    "Phi3Config": ({"num_hidden_layers": 32, "pad_token_id": 0}, {"num_hidden_layers": 2}),
    "DeepseekV3Config": ({"num_hidden_layers": 6}, {"n_routed_experts": 4, "kv_lora_rank": 32}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_shrunk_configs_make_models_of_the_same_kind_that_run(name):
    import torch
    import transformers

    sizes, expected = CONFIGS[name]
    config = getattr(transformers, name)(**{"vocab_size": 500, "bos_token_id": 1, "eos_token_id": 2} | sizes)
    vocabulary = config.vocab_size
    shrink(config, TWIN)
    assert {field: getattr(config, field) for field in expected} == expected
    assert config.vocab_size == vocabulary
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    logits = model(input_ids=torch.arange(8)[None]).logits
    assert logits.shape == (1, 8, vocabulary)
    assert logits.isfinite().all()


def test_one_layer_of_each_kind_is_kept():
    class Config:
        num_hidden_layers = 6

        def __init__(self):
            self.layer_types = ["a", "a", "b", "a", "b", "b"]
            self.mlp_layer_types = ["dense", "sparse", "sparse", "sparse", "sparse", "sparse"]
            self.vocabulary = ["x"] * 6 + ["y"]  # no list of layers

    assert representative_layers(Config(), 2) == [0, 1, 2]
    assert representative_layers(Config(), 5) == [0, 1, 2, 3, 4]


def original_folder(folder, **files):
    """A small Llama with grouped heads in bf16, with files that must come along."""
    sizes = {"hidden_size": 128, "intermediate_size": 512, "layers": 6, "attention_heads": 16}
    params = TwinParams(architecture="llama", vocabulary_size=400, key_value_heads=4, **sizes)
    folder.mkdir(parents=True)
    for name, content in make_twin(params, TEXTS).items():
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_bytes()) | {"dtype": "bfloat16", "rope_theta": 5e5}
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def rehearse(tmp_path, **params):
    store = LocalStore(tmp_path / "store")
    put_data(store, {"train": []})
    params = ModelParams(**{"source": "twin", "twin": TWIN, "twin_of": "folder"} | params)
    train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work", model=params))
    assert verify(store, "models/key") == []
    return tmp_path / "store/models/key"


def test_a_rehearsal_twin_keeps_everything_but_the_sizes(tmp_path):
    original = original_folder(
        tmp_path / "original", chat_template__jinja=TEMPLATES["llama3"], LICENSE__txt="free"
    )
    twin = rehearse(tmp_path, location=str(original))
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "LICENSE.txt",
    ):
        assert (twin / name).read_bytes() == (original / name).read_bytes(), name
    before, after = (json.loads((folder / "config.json").read_bytes()) for folder in (original, twin))
    for name in ("architectures", "model_type", "vocab_size", "dtype", "rms_norm_eps", "eos_token_id"):
        assert after[name] == before[name], name
    assert (after["num_hidden_layers"], after["hidden_size"]) == (2, 32)
    assert (after["num_attention_heads"], after["num_key_value_heads"], after["head_dim"]) == (4, 2, 8)
    assert sum(file.stat().st_size for file in twin.glob("*.safetensors")) < 200_000


def test_a_rehearsal_twin_of_an_artifact_follows_its_location(tmp_path):
    original = original_folder(tmp_path / "original")
    store = LocalStore(tmp_path / "other")
    manifest = Manifest(files=[], location=original.as_uri())
    write_marker(store, "models/abc", manifest)
    twin = rehearse(
        tmp_path, twin_of="store", location=f"{store.uri}/models/abc", sha256=manifest.content_digest
    )
    assert (twin / "tokenizer.json").read_bytes() == (original / "tokenizer.json").read_bytes()


CONFIGURATION = """
from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "own"
"""
MODELING = """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_the_repository_comes_along_and_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    original = original_folder(
        tmp_path / "original", configuration_own__py=CONFIGURATION, modeling_own__py=MODELING
    )
    config = json.loads((original / "config.json").read_bytes())
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (original / "config.json").write_text(json.dumps(config))
    twin = rehearse(tmp_path, location=str(original), trust_remote_code=True)
    assert (twin / "modeling_own.py").read_text() == MODELING
    assert json.loads((twin / "config.json").read_bytes())["auto_map"] == config["auto_map"]

    with pytest.raises(StageUserError, match="no tiny twin can be made"):
        rehearse(tmp_path / "untrusted", location=str(original))


def test_equal_seeds_give_equal_bytes(tmp_path):
    original = original_folder(tmp_path / "original")
    twins = [rehearse(tmp_path / name, location=str(original)) for name in "ab"]
    markers = [read_marker(LocalStore(twin.parent.parent), "models/key") for twin in twins]
    assert markers[0] == markers[1]
