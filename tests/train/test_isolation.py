import json

import pytest

from train.data.isolation import KNOWN_ISOLATED, leak, require_isolation
from train.stage import StageUserError

TINY = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXTRA = {
    "Qwen3MoeForCausalLM": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "Gemma3ForCausalLM": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64},
}


def tiny_model(architecture: str):
    import torch
    import transformers

    name = architecture.removesuffix("ForCausalLM")
    config_name = {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config")
    sizes = TINY | EXTRA.get(architecture, {})
    if name == "Falcon":
        del sizes["head_dim"]  # derived
    config = getattr(transformers, config_name)(**sizes)
    torch.manual_seed(0)
    return getattr(transformers, architecture)(config)


@pytest.mark.parametrize("architecture", sorted(KNOWN_ISOLATED))
def test_known_architectures_keep_documents_apart(architecture):
    assert leak(tiny_model(architecture)) < 1e-5


@pytest.mark.parametrize("architecture", sorted(KNOWN_ISOLATED))
def test_lora_does_not_change_that(architecture):
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    assert leak(get_peft_model(tiny_model(architecture), lora)) < 1e-5


@pytest.mark.parametrize("architecture", ["BloomForCausalLM", "FalconForCausalLM", "MptForCausalLM"])
def test_leaking_architectures_are_found_and_refused(tmp_path, architecture):
    tiny_model(architecture).config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageUserError, match=r"training\.packing: false"):
        require_isolation(tmp_path)


def test_an_unlisted_architecture_is_probed(tmp_path):
    from transformers import Olmo2Config

    Olmo2Config(**TINY, architectures=["Olmo2ForCausalLM"]).save_pretrained(tmp_path)
    require_isolation(tmp_path)


def test_code_of_a_repository_is_probed_even_under_a_known_name(tmp_path):
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "auto_map": {"AutoConfig": "own.Own"},
        "model_type": "own",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageUserError, match="no tiny twin"):
        require_isolation(tmp_path)
