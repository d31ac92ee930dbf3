"""Cross entropy over supervised positions alone.

Of a chat's tokens only the assistant's are learnt, yet a causal language model computes logits (tokens ×
vocabulary, often its largest activation) for all of them. Here the hidden states of supervised positions are
picked before the output head, and the head and its loss run on a chunk of them at a time.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from artifacts.contract import IGNORED_LABEL

#: Elements of one chunk's logits: 128 MB in float32.
CHUNK_ELEMENTS = 32 * 1024 * 1024

#: What a model's forward hands on to the part below its output head.
_BASE_INPUTS = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "past_key_values"}


@dataclass(frozen=True)
class LogitTransform:
    """What some families do to the output head's logits: multiply (Cohere, Granite), then cap (Gemma):
    `softcap · tanh(scale · logits / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitTransform:
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return cls(float(scale), getattr(config, "final_logit_softcapping", None))


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of `-log softmax(transform(hidden · weightᵀ + bias))[targets]` over the N rows of `hidden`; with
    `label_smoothing` ε against targets of which ε is spread evenly over the V words, as torch's own.

    Shapes: hidden (N, H), weight (V, H), bias (V,) or None, targets (N,) int64. The gradients are computed in
    the forward pass, chunk by chunk, while the chunk's logits are there: nothing of size N × V outlives a
    chunk and no matrix product is done twice (the idea of Liger's fused linear cross entropy,
    https://arxiv.org/abs/2410.10989). N may be 0: the loss is 0 and so are all gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        transform: LogitTransform,
        label_smoothing: float,
        with_gradients: bool,
    ) -> torch.Tensor:
        device_type = hidden.device.type
        autocast = torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if autocast else hidden.dtype
        compute_weight = weight.to(dtype)
        hidden_gradient = torch.empty_like(hidden) if with_gradients and ctx.needs_input_grad[0] else None
        weight_gradient = torch.zeros_like(weight) if with_gradients and ctx.needs_input_grad[1] else None
        bias_gradient = (
            torch.zeros_like(bias)
            if with_gradients and bias is not None and ctx.needs_input_grad[2]
            else None
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
        for start in range(0, hidden.shape[0], rows):
            chunk = slice(start, start + rows)
            with torch.autocast(device_type, enabled=False):
                inputs = hidden[chunk].to(dtype)
                logits = nn.functional.linear(
                    inputs, compute_weight, None if bias is None else bias.to(dtype)
                )
                loss, gradient = _chunk_loss(
                    logits.float(), targets[chunk], transform, label_smoothing, with_gradients
                )
                total += loss
                if gradient is None:
                    continue
                gradient = gradient.to(dtype)
                if hidden_gradient is not None:
                    hidden_gradient[chunk] = gradient @ compute_weight
                if weight_gradient is not None:
                    weight_gradient += gradient.t() @ inputs
                if bias_gradient is not None:
                    bias_gradient += gradient.sum(0)
        ctx.gradients = hidden_gradient, weight_gradient, bias_gradient
        return total

    @staticmethod
    def backward(ctx: Any, *output_gradients: Any) -> Any:
        (scale,) = output_gradients
        scaled = [None if gradient is None else gradient.mul_(scale) for gradient in ctx.gradients]
        ctx.gradients = None
        return (*scaled, None, None, None, None)


def _chunk_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    transform: LogitTransform,
    label_smoothing: float,
    with_gradients: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The summed loss of float32 `logits` (n, V), which is overwritten, and its gradient by them."""
    if transform.scale != 1.0:
        logits *= transform.scale
    capped = None
    if transform.softcap is not None:
        capped = torch.tanh_(logits / transform.softcap)
        logits = capped * transform.softcap
    picked = logits.gather(1, targets[:, None]).squeeze(1)
    normalizer = torch.logsumexp(logits, dim=1)
    if label_smoothing:  # log-probabilities of the target, and of all words on average
        picked = (1 - label_smoothing) * picked + label_smoothing * logits.mean(1)
    loss = (normalizer - picked).sum()
    if not with_gradients:
        return loss, None
    gradient = logits.sub_(normalizer[:, None]).exp_()  # softmax
    gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), label_smoothing - 1.0))
    if label_smoothing:
        gradient -= label_smoothing / logits.shape[1]
    if capped is not None:
        gradient *= 1 - capped.square()
    if transform.scale != 1.0:
        gradient *= transform.scale
    return loss, gradient


def install(model: PreTrainedModel) -> bool:
    """Teach a causal language model `model(input_ids, position_ids, targets=…)`, which returns the summed
    loss of `targets` (B, T) as a scalar. Called through the model, so wrappers' hooks see it as any forward
    pass.

    False, and the model unchanged, for a family whose logits are not `LogitTransform(head(hidden states))`
    (tried on stand-ins of two tokens and eight words): `summed_loss` then uses the family's own logits.
    """
    head = model.get_output_embeddings()
    transform = LogitTransform.of(model.config.get_text_config())
    if type(head) is not nn.Linear or not _transform_holds(model, transform):
        return False
    plain_forward, plain_head_forward = model.forward, head.forward

    def head_forward(
        hidden: torch.Tensor, targets: torch.Tensor | None = None, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        if targets is None:
            return plain_head_forward(hidden)
        loss: torch.Tensor = ChunkedCrossEntropy.apply(
            hidden, head.weight, head.bias, targets, transform, label_smoothing, torch.is_grad_enabled()
        )
        return loss

    def forward(
        *args: Any, targets: torch.Tensor | None = None, label_smoothing: float = 0.0, **kwargs: Any
    ) -> Any:
        if targets is None:
            return plain_forward(*args, **kwargs)
        # PEFT's prefixes come as embeddings or as a cache; a prompt's own positions predict nothing.
        given = {name: value for name, value in kwargs.items() if value is not None and name in _BASE_INPUTS}
        hidden = model.base_model(**given, use_cache=False).last_hidden_state[:, -targets.shape[1] :]
        supervised = targets != IGNORED_LABEL
        return head(hidden[supervised], targets=targets[supervised], label_smoothing=label_smoothing)

    head.forward, model.forward = head_forward, forward
    return True


def summed_loss(
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    *,
    installed: bool,
    slices_logits: bool,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The loss summed over the supervised positions of a batch, float32.

    `installed` is what `install` returned; `slices_logits`, for the others, whether the family's forward
    takes `logits_to_keep` (a boolean mask over positions) or computes all logits.
    """
    tokens = {"input_ids": inputs["input_ids"], "position_ids": inputs["position_ids"]}
    targets = inputs["targets"]
    if installed:
        loss: torch.Tensor = model(**tokens, targets=targets, label_smoothing=label_smoothing)
        return loss
    supervised = targets != IGNORED_LABEL
    if slices_logits:
        logits = model(**tokens, use_cache=False, logits_to_keep=supervised).logits
    else:
        logits = model(**tokens, use_cache=False).logits[:, -targets.shape[1] :][supervised]
    return nn.functional.cross_entropy(
        logits.float(), targets[supervised], reduction="sum", label_smoothing=label_smoothing
    )


def slices_logits(model: PreTrainedModel) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


class _Hidden(nn.Module):
    """Stands in for a base model: answers with fixed hidden states."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)


@torch.no_grad()
def _transform_holds(model: PreTrainedModel, transform: LogitTransform) -> bool:
    """Run the family's own forward with stand-ins for base model and head, and compare its logits."""
    base, head = model.base_model, model.get_output_embeddings()
    if base is model or model.base_model_prefix not in model._modules:
        return False
    width = head.weight.ds_shape[1] if hasattr(head.weight, "ds_shape") else head.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 2, width, generator=generator)
    small_head = nn.Linear(width, 8, bias=False)
    small_head.weight.copy_(
        torch.randn(8, width, generator=generator) * 20 / width**0.5
    )  # beyond any soft cap
    expected = small_head(hidden) * transform.scale
    if transform.softcap is not None:
        expected = torch.tanh(expected / transform.softcap) * transform.softcap
    model._modules[model.base_model_prefix] = _Hidden(hidden)
    model.set_output_embeddings(small_head)
    try:
        logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False).logits
    except (AttributeError, TypeError, RuntimeError, ValueError):  # the forward needs more than hidden states
        return False
    finally:
        model._modules[model.base_model_prefix] = base
        model.set_output_embeddings(head)
    return logits.shape == expected.shape and torch.allclose(logits.float(), expected, rtol=1e-5, atol=1e-4)
