"""What a method trains, and that it leaves the rest alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.contract import LoraParams
from tests.train import method_cases, training
from tests.train.conftest import Ranks
from tests.train.training import LORA, params
from train import methods
from train.stage import StageUserError


def model(tmp_path: Path, *, tied: bool = True) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(training.write_model(tmp_path / "model", tied=tied))


def lora(**changes: Any) -> Any:
    return params(method="lora", lora=LoraParams(rank=4, alpha=8, **changes))


#: Which parameters each method trains, as a regular expression of their names in a tied two-layer Qwen3.
LORA_OF = r"base_model\.model\.model\.layers\.[01]\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.lora_"
DECLARED = {
    "full": r".*",
    "head": r"model\.embed_tokens\.weight",
    "last layers": r"model\.layers\.1\..*",
    "extra layers": r"model\.layers\.[23]\..*",
    **dict.fromkeys(
        ("lora", "rslora", "pissa", "pissa and rslora", "olora"), LORA_OF + r"[AB]\.default\.weight"
    ),
    "dora": LORA_OF + r"([AB]|magnitude_vector)\.default\.weight",
    "saved modules": LORA_OF + r"[AB]\.default\.weight|.*(embed_tokens|lm_head)\.modules_to_save\..*",
    "trained tokens": LORA_OF + r"[AB]\.default\.weight|.*embed_tokens\.token_adapter\.\w*_delta\.default",
    "ia3": r".*layers\.[01]\.(self_attn\.[kv]_proj|mlp\.down_proj)\.ia3_l\.default",
    "prefix": r"prompt_encoder\.default\.(embedding|transform\.[02])\.(weight|bias)",
    **dict.fromkeys(("p-tuning v2", "prompt"), r"prompt_encoder\.default\.embedding\.weight"),
    "llama-adapter": r"base_model\.model\.model\.layers\.[01]\.self_attn\.adaption_(prompt|gate)",
}
CASES = {**method_cases.WHOLE, **method_cases.ADAPTERS}


def applied(made: Any, name: str) -> Any:
    tokens = method_cases.TRAINED_TOKENS if name == "trained tokens" else {}
    return methods.apply(made, CASES[name], methods.Tokens(trained=tokens))


@pytest.mark.parametrize("name", CASES)
def test_exactly_the_declared_parameters_are_trained(tmp_path: Path, name: str) -> None:
    adapted = applied(model(tmp_path), name)
    names = [each for each, _ in adapted.named_parameters()]
    declared = {each for each in names if re.fullmatch(DECLARED[name], each)}
    assert declared and methods.trainable_names(adapted) == declared


@pytest.mark.parametrize("name", ["head", "last layers", "extra layers"])
def test_what_is_trained_of_a_model_is_held_in_float32(tmp_path: Path, name: str) -> None:
    adapted = applied(model(tmp_path).bfloat16(), name)
    assert all(
        p.dtype == (torch.float32 if p.requires_grad else torch.bfloat16) for p in adapted.parameters()
    )


@pytest.mark.parametrize("family", method_cases.FAMILIES)
def test_training_starts_at_what_the_base_does(family: str) -> None:
    for name in method_cases.fitting(family, method_cases.STARTS_AS_BASE):
        made = method_cases.FAMILIES[family]()
        expected = method_cases.logits(made)
        assert (method_cases.logits(applied(made, name)) - expected).abs().max() < 1e-6, name


@pytest.mark.parametrize("family", method_cases.FAMILIES)
def test_every_method_generates_with_a_cache_what_it_does_without(family: str) -> None:
    for name in method_cases.fitting(family, ("lora", "ia3", "extra layers", *method_cases.BESIDE)):
        torch.manual_seed(0)
        adapted = applied(method_cases.FAMILIES[family](), name)
        method_cases.disturb(adapted)
        tokens = torch.arange(3, 9)[None]
        cached = adapted.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=8,
            pad_token_id=0,
            eos_token_id=None,
        )
        for _ in range(8):
            following = method_cases.logits(adapted, tokens)[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, following], 1)
        assert cached.tolist() == tokens.tolist(), name


def test_an_adaption_prompt_needs_an_attention_that_is_known() -> None:
    with pytest.raises(StageUserError, match="does not know the attention of BloomForCausalLM"):
        methods.apply(method_cases.FAMILIES["bloom"](), CASES["llama-adapter"])


def test_an_adaption_prompt_is_attended_to_as_the_text_is() -> None:
    """A prompt of the text's own embedding, in the first layer, at an open gate: attention over it alone."""
    made = method_cases.FAMILIES["qwen3"]()
    adapted = methods.apply(made, CASES["llama-adapter"])
    attention = adapted.base_model.model.model.layers[0].self_attn
    hidden = torch.randn(1, 1, 64)
    unturned = torch.ones(1, 1, 16), torch.zeros(1, 1, 16)  # cosines and sines of position 0
    with torch.no_grad():
        plain = attention.model(hidden_states=hidden, position_embeddings=unturned, attention_mask=None)[0]
        attention.adaption_prompt.copy_(hidden.expand(1, 3, 64))
        attention.adaption_gate.fill_(1.0)
        both = attention(hidden_states=hidden, position_embeddings=unturned, attention_mask=None)[0]
    torch.testing.assert_close(both, 2 * plain)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"last_layers": 3}, "has 2 layers, method.last_layers is 3"),
        ({"extra_layers": 1}, "output projections"),
    ],
)
def test_a_model_without_such_layers_is_refused(changed: Any, message: str) -> None:
    made = method_cases.FAMILIES["llama"]()
    if "extra_layers" in changed:
        made.model.layers[-1].mlp.forget = made.model.layers[-1].mlp.__dict__["_modules"].pop("down_proj")
        made.model.layers[-1].self_attn.last = made.model.layers[-1].self_attn._modules.pop("o_proj")
    with pytest.raises(StageUserError, match=message):
        methods.apply(made, method_cases.partial(**changed))


@pytest.mark.parametrize("name", ["head", "ia3", "prefix", "llama-adapter"])
def test_methods_that_train_no_embeddings_refuse_added_tokens(tmp_path: Path, name: str) -> None:
    with pytest.raises(StageUserError, match=r"the template adds <\|end\|> to the tokenizer"):
        methods.apply(model(tmp_path), CASES[name], methods.Tokens(added={"<|end|>": 96}))


def test_new_rows_start_as_the_mean_of_the_others(tmp_path: Path) -> None:
    """Also those of an id that the embedding has room for."""
    made = model(tmp_path, tied=False)
    rows = made.get_input_embeddings().weight.detach().clone()
    methods.tokens.resize(made, {"a": 95, "b": 96})
    for weight, count in (
        (made.get_input_embeddings().weight, 97),
        (made.get_output_embeddings().weight, 97),
    ):
        assert weight.shape == (count, 32) and torch.equal(weight[95], weight[96])
    torch.testing.assert_close(made.get_input_embeddings().weight[96], rows[:95].mean(0))
    assert made.config.vocab_size == 97


def test_tokens_are_read_from_what_was_prepared(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    (tmp_path / "tokenizer").mkdir()
    Tokenizer(WordLevel({"yes": 3, "no": 4}, "no")).save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    (tmp_path / "statistics.json").write_text('{"added_tokens": {"<|end|>": 5}}')
    job = lora(trainable_tokens=["yes"])
    assert methods.tokens.read(tmp_path, job) == methods.Tokens({"<|end|>": 5}, {"yes": 3})
    with pytest.raises(StageUserError, match="'maybe' is no single token"):
        methods.tokens.read(tmp_path, lora(trainable_tokens=["maybe"]))


def test_lora_plus_lets_b_learn_faster(tmp_path: Path) -> None:
    job = lora(plus_ratio=16.0)
    adapted = methods.apply(model(tmp_path), job)
    slow, fast = sorted(methods.optimizer_groups(adapted, job), key=lambda group: group["lr"])
    assert fast["lr"] == 16 * slow["lr"] == 16 * job.learning_rate
    named = {id(p): name for name, p in adapted.named_parameters()}
    assert all(".lora_B." in named[id(p)] for p in fast["params"])
    assert all(".lora_A." in named[id(p)] for p in slow["params"])
    assert len(fast["params"]) == len(slow["params"]) == 14
    assert methods.optimizer_groups(adapted, lora()) is None


def test_lora_trains_exactly_the_declared_modules(tmp_path: Path) -> None:
    adapted = methods.apply(model(tmp_path), lora(target_modules=["q_proj", "v_proj"]))
    assert methods.trainable_names(adapted) == {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{side}.default.weight"
        for layer in range(2)
        for module in ("q_proj", "v_proj")
        for side in "AB"
    }


def test_all_linear_means_every_linear_layer_but_the_head(tmp_path: Path) -> None:
    adapted = methods.apply(model(tmp_path), lora())
    assert len(methods.trainable_names(adapted)) == 2 * 7 * 2
    assert not any("lm_head" in name for name in methods.trainable_names(adapted))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_tied_weights_are_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(StageUserError, match="shares its weight"):
        methods.apply(model(tmp_path), lora(target_modules=["q_proj", target]))


def test_an_untied_head_may_be_adapted(tmp_path: Path) -> None:
    adapted = methods.apply(model(tmp_path, tied=False), lora(target_modules=["lm_head"]))
    assert len(methods.trainable_names(adapted)) == 2


def test_unknown_modules_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(StageUserError, match="LoRA does not fit Qwen3ForCausalLM"):
        methods.apply(model(tmp_path), lora(target_modules=["query_key_value"]))


@pytest.mark.parametrize(
    ("method", "precision", "expected"),
    [("full", "bf16", "float32"), ("lora", "bf16", "bfloat16"), ("lora", "fp32", "float32")],
)
def test_only_frozen_weights_are_held_in_half_precision(method: Any, precision: Any, expected: str) -> None:
    held = methods.weights_dtype(params(method=method, lora=LORA, precision=precision))
    assert str(held) == f"torch.{expected}"


def frozen_and_trained(root: Path, task_params: Any) -> tuple[dict[str, bytes], dict[str, bytes], set[str]]:
    """In a rank: the frozen weights' bits before and after training, and the names of changed adapters."""
    import torch

    from train import loop, trainer

    kept: list[Any] = []

    class Watched(trainer.RankTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            kept.append((self.model, bits(self.model), adapters(self.model)))

    def bits(adapted: Any) -> dict[str, bytes]:
        return {
            name: tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            for name, tensor in adapted.state_dict().items()
            if ".lora_" not in name
        }

    def adapters(adapted: Any) -> dict[str, Any]:
        return {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}

    trainer.RankTrainer = Watched
    loop.train_rank(training.task(root, root / "model", root / "prepared", task_params))
    adapted, before, start = kept[0]
    changed = {name for name, value in adapters(adapted).items() if not torch.equal(value, start[name])}
    assert changed == start.keys(), "an adapter did not learn"
    return before, bits(adapted), changed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_stay_bit_identical(ranks: Ranks, tmp_path: Path, precision: str) -> None:
    training.write_model(tmp_path / "model")
    training.write_split(tmp_path / "prepared", "train", training.pack(training.documents(20), 48))
    job = params(method="lora", lora=LORA, precision=precision, weight_decay=0.1)
    for before, after, changed in ranks(2, frozen_and_trained, tmp_path, job):
        assert len(before) > 20 and len(changed) == 28
        assert before == after
