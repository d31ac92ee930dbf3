"""Small models that can be asked: whole, adapter, GPTQ, GGUF. Weights and words are random."""

from __future__ import annotations

import json
import string
from pathlib import Path

from tests.train.chat_templates import SPECIAL_TOKENS, TEMPLATES
from tests.train.gptq import write_gptq
from tests.train.method_cases import disturb


def write_model(folder: Path, *, hidden: int = 64, layers: int = 2, context: int = 512) -> Path:
    """A Qwen3 whose tokens are letters, and which never comes to an end by itself."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokens = write_tokenizer(folder)
    torch.manual_seed(4)
    config = Qwen3Config(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=context,
        initializer_range=0.3,  # logits far apart: equal computations give equal letters
        tie_word_embeddings=False,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    written = [tokens.index(letter) for letter in [*string.ascii_lowercase, "Ġ"]]
    others = torch.ones(len(tokens), dtype=torch.bool).index_fill(0, torch.tensor(written), False)
    with torch.no_grad():
        model.lm_head.weight[others] *= 0.01
    model.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path) -> list[str]:
    """Returns the tokens: special ones, one for each byte, and a pair."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]  # llama.cpp wants a merge
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    config["pre_tokenizer"] = "gpt-2"  # what llama.cpp calls it
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATES["chatml"])
    return tokens


def write_adapter(base: Path, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    disturb(model)
    model.save_pretrained(folder)
    return folder


def write_gptq_model(base: Path, folder: Path) -> Path:
    write_gptq(base, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((base / name).read_bytes())
    return folder


def write_gguf(base: Path, file: Path) -> Path:
    """Raises StageUserError where llama.cpp is not installed."""
    from train.child import in_child
    from train.data.loading import load_chat_tokenizer
    from train.gguf_files import convert, source

    links = file.parent / "links"
    declared = source.prepare(base, load_chat_tokenizer(base).backend, links)
    in_child("converting", convert.convert, convert.converter_folder(), links, file, declared, "tiny")
    return file
