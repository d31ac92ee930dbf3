"""IA3: learnt factors of keys, values and feed-forward activations (https://arxiv.org/abs/2205.05638)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from artifacts.contract import TrainParams
from train.methods.tokens import Tokens
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Names of key and value projections, and of the feed-forward layer that takes the activations.
_PROJECTIONS = ("k_proj", "v_proj", "query_key_value", "qkv_proj", "key", "value", "c_attn")
_FEEDFORWARD = ("down_proj", "dense_4h_to_h", "fc2", "w2", "mlp.c_proj")


def apply(model: PreTrainedModel, params: TrainParams, new: Tokens) -> Any:
    """Raises StageUserError for an architecture whose modules have other names."""
    from peft import IA3Config, get_peft_model

    names = [name for name, _ in model.named_modules()]
    targets = [target for target in _PROJECTIONS if any(name.endswith(f".{target}") for name in names)]
    feedforward = [target for target in _FEEDFORWARD if any(name.endswith(f".{target}") for name in names)]
    if not targets or not feedforward:
        raise StageUserError(
            f"IA3 knows no keys, values and feed-forward layers of {type(model).__name__}", "use method lora"
        )
    config = IA3Config(
        task_type="CAUSAL_LM", target_modules=[*targets, *feedforward], feedforward_modules=feedforward
    )
    adapted = get_peft_model(model, config)
    for name, module in adapted.named_modules():
        if name.rpartition(".")[2] in targets:
            module.register_forward_hook(_as_the_input)
    return adapted


def _as_the_input(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    """Keys and values in the precision of the queries: PEFT leaves those of a quantized layer in float32."""
    return output.to(inputs[0].dtype)
