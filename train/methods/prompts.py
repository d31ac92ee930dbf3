"""Methods that train virtual tokens in front of every sequence: keys and values of each layer (prefix tuning,
P-tuning v2) or embeddings alone (prompt tuning)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from artifacts.contract import PromptParams, TrainParams
from train.methods.tokens import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(model: PreTrainedModel, params: TrainParams, new: Tokens) -> Any:
    from peft import get_peft_model

    assert params.prompt is not None, "the plan sets prompt for these methods"
    return get_peft_model(model, _config(model, params.method, params.prompt))


def _config(model: PreTrainedModel, method: str, prompt: PromptParams) -> Any:
    from peft import PrefixTuningConfig, PromptTuningConfig

    if method == "prompt_tuning":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=prompt.virtual_tokens)
    # Without the projection, prefix tuning is P-tuning v2's deep prompts (https://arxiv.org/abs/2110.07602).
    projected = method == "prefix_tuning"
    width = prompt.projection_size or model.config.get_text_config().hidden_size
    return PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=prompt.virtual_tokens,
        prefix_projection=projected,
        encoder_hidden_size=width if projected else None,
    )
