"""What is trained, with the values that the job leaves open, and how the base is held."""

from __future__ import annotations

from artifacts.contract import LoraParams, PartialParams, PromptParams, Quantization
from launcher.dimensions import Dimensions
from launcher.planning.findings import Findings
from launcher.planning.matrix import Option
from launcher.spec.method import Method

#: Prefixes: PEFT's examples; adaption prompts: the LLaMA-Adapter paper (arXiv 2303.16199).
DEFAULT_VIRTUAL_TOKENS = {"prefix_tuning": 20, "p_tuning_v2": 20, "prompt_tuning": 20, "llama_adapter": 10}


def lora(found: Findings) -> LoraParams | None:
    method = found.job.method
    if method.type != "lora":
        return None
    alpha = method.alpha
    if alpha is None:
        alpha = 2 * method.rank
        found.say("method.alpha", alpha, f"2 × rank {method.rank}")
    return LoraParams(
        rank=method.rank,
        alpha=alpha,
        dropout=method.dropout,
        target_modules=method.target_modules,
        rslora=method.rslora,
        dora=method.dora,
        init=method.init,
        plus_ratio=method.plus_ratio,
        modules_to_save=method.modules_to_save,
        trainable_tokens=method.trainable_tokens,
    )


def partial(found: Findings) -> PartialParams | None:
    method = found.job.method
    if method.type != "partial":
        return None
    return PartialParams(
        head=method.train == "head",
        last_layers=method.last_layers or 0,
        extra_layers=method.extra_layers or 0,
    )


def prompt(found: Findings, size: Dimensions | None) -> PromptParams | None:
    """Virtual tokens of the methods that have them."""
    method = found.job.method
    if method.type not in DEFAULT_VIRTUAL_TOKENS:
        return None
    tokens, projection = method.virtual_tokens, method.projection_size
    if tokens is None:
        tokens = DEFAULT_VIRTUAL_TOKENS[method.type]
        found.say("method.virtual_tokens", tokens, f"the default of method {method.type}")
    if method.type == "prefix_tuning" and projection is None and size is not None:
        projection = size.hidden_size
        found.say("method.projection_size", projection, "the model's width")
    return PromptParams(
        virtual_tokens=tokens, projection_size=projection, adapter_layers=method.adapter_layers
    )


def quantization(found: Findings, quantized_by: str | None) -> Quantization:
    """How the base is held. `quantized_by` is the `quant_method` of the model's config.json, None where it is
    not quantized."""
    wanted = found.job.method.quantization
    if quantized_by is None:
        return wanted
    if quantized_by == "gptq":
        if wanted != "none":
            way_out = "leave it out, or name the unquantized model"
            found.refuse("method.quantization", wanted, "the model is already quantized, by GPTQ", way_out)
        found.say(
            "quantization", "gptq", "the model is quantized by GPTQ (config.json), and trained as it is"
        )
        return "gptq"
    why = f"the model is quantized by {quantized_by}; trained are unquantized models and GPTQ's"
    source = found.job.model.given("hub", "folder", "store")[0]
    way_out = "name the unquantized model, with quantization: nf4"
    found.refuse(f"model.{source}", getattr(found.job.model, source), why, way_out)
    return wanted


def options(method: Method) -> frozenset[Option]:
    """The variants that the job asks for."""
    chosen: dict[Option, bool] = {
        "head": method.train == "head",
        "last_layers": method.last_layers is not None,
        "extra_layers": method.extra_layers is not None,
        "rslora": method.rslora,
        "dora": method.dora,
        "pissa": method.init == "pissa",
        "olora": method.init == "olora",
        "loftq": method.init == "loftq",
        "plus_ratio": method.plus_ratio is not None,
        "modules_to_save": bool(method.modules_to_save),
        "trainable_tokens": bool(method.trainable_tokens),
    }
    return frozenset(name for name, is_chosen in chosen.items() if is_chosen)


def check_model(found: Findings, size: Dimensions | None) -> None:
    """What the model's config rules out."""
    method = found.job.method
    if size is None:
        return
    length = found.job.training.max_length
    if size.max_positions and length > size.max_positions:
        why = f"the model has {size.max_positions:,} positions"
        found.refuse("training.max_length", length, why, f"use {size.max_positions} or less")
    _check_layers(found, size)
    named = [] if isinstance(method.target_modules, str) else method.target_modules
    tied = sorted({"lm_head", "embed_tokens"} & set(named))
    if method.type == "lora" and size.tie_embeddings and tied:
        why = "the model's embed_tokens and lm_head are one matrix, so an adapter on it can't be merged"
        found.refuse("method.target_modules", tied[0], why, f"leave {tied[0]} out, or use method full")


def _check_layers(found: Findings, size: Dimensions) -> None:
    method = found.job.method
    for field, number in (("last_layers", method.last_layers), ("adapter_layers", method.adapter_layers)):
        if number is not None and number > size.layers:
            why = f"the model has {size.layers} layers"
            found.refuse(f"method.{field}", number, why, f"use {size.layers} or fewer")
