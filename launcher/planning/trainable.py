"""How many parameters a method trains, and how many it leaves as they are."""

from __future__ import annotations

from launcher.dimensions import Dimensions
from launcher.planning.method import DEFAULT_VIRTUAL_TOKENS
from launcher.spec.method import Method

#: Layers that llama_adapter leaves without an adaption prompt where the job does not say.
LAYERS_WITHOUT_PROMPT = 2
_EMBEDDINGS = {"lm_head", "embed_tokens", "word_embeddings", "embedding", "output_layer"}


def parameters(size: Dimensions, method: Method) -> int:
    """Parameters that get gradients."""
    if method.type == "full":
        return size.parameters
    if method.type == "partial":
        return partial(size, method)
    if method.type == "lora":
        return lora(size, method)
    if method.type == "ia3":
        return ia3(size)
    return prompts(size, method)


def frozen(size: Dimensions, method: Method) -> int:
    """Parameters of the base that stay as they are."""
    if method.type == "full":
        return 0
    inside = method.type == "partial" and method.extra_layers is None
    return size.parameters - (parameters(size, method) if inside else 0)


def partial(size: Dimensions, method: Method) -> int:
    if method.train == "head":
        return size.embedding_parameters
    return (method.last_layers or method.extra_layers or 0) * size.layer_parameters


def lora(size: Dimensions, method: Method) -> int:
    """rank × (inputs + outputs) of each target, the magnitudes of DoRA (one an output), and what is trained
    whole. `all-linear` is every linear module but the output head, as PEFT takes it; what a regular
    expression matches is not looked at, and counted as all."""
    shapes, targets = size.linear_shapes, method.target_modules
    named = list(shapes) if isinstance(targets, str) else targets
    chosen = [shapes[name] for name in named if name in shapes]
    heads = len(_EMBEDDINGS & set(named))
    in_layers = sum(inputs + outputs for inputs, outputs in chosen)
    count = method.rank * (size.layers * in_layers + heads * (size.hidden_size + size.vocabulary_size))
    if method.dora:
        count += size.layers * sum(outputs for _, outputs in chosen) + heads * size.vocabulary_size
    count += len(_EMBEDDINGS & set(method.modules_to_save)) * size.embedding_parameters
    return count + len(method.trainable_tokens) * size.hidden_size


def ia3(size: Dimensions) -> int:
    """A factor for each key, value and input of the MLP's last projection (arXiv 2205.05638); where one
    product makes queries, keys and values, for each of its outputs."""
    shapes = size.linear_shapes
    if "k_proj" in shapes:
        attention = 2 * size.key_value_size
    else:
        attention = next((shapes[name][1] for name in ("query_key_value", "qkv_proj") if name in shapes), 0)
    return size.layers * (attention + size.intermediate_size)


def prompts(size: Dimensions, method: Method) -> int:
    """Virtual tokens: keys and values of each layer (as they are, or made by an MLP), embeddings, or adaption
    prompts with a gate a layer. Sizes as in peft 0.21 (tuners/prefix_tuning, prompt_tuning,
    adaption_prompt)."""
    tokens = method.virtual_tokens or DEFAULT_VIRTUAL_TOKENS[method.type]
    width = size.key_value_size
    if method.type == "prompt_tuning":
        return tokens * size.hidden_size
    if method.type == "llama_adapter":
        layers = method.adapter_layers or max(1, size.layers - LAYERS_WITHOUT_PROMPT)
        return layers * (tokens * size.hidden_size + 1)
    prefixes = 2 * size.layers * width
    if method.type == "p_tuning_v2":
        return tokens * prefixes
    inner = method.projection_size or size.hidden_size
    return tokens * width + (width + 1) * inner + (inner + 1) * prefixes
