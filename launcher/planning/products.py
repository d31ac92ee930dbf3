"""What is made of the trained model: which products, for which architectures, published as what."""

from __future__ import annotations

from collections.abc import Sequence

from artifacts.contract import Product
from artifacts.gptq import misfit
from launcher.dimensions import Dimensions
from launcher.planning.findings import Findings
from launcher.planning.hardware import Hardware, Refusal, ThisMachine
from launcher.spec.products import After
from launcher.spec.words import listed

#: `model_type`s that the stage `gguf` converts: llama.cpp knows more, these are tested here.
GGUF_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
NOT_INSTALLED = "gguf needs llama.cpp, which is an extra and not installed here"
#: The stage that makes a product; an adapter is what training leaves.
MAKERS: dict[Product, After | None] = {
    "model": "merge",
    "adapter": None,
    "quantized": "quantize",
    "gguf": "gguf",
}


def check(found: Findings, size: Dimensions | None, after: Sequence[After], *, whole: bool) -> None:
    """Refuse products that can't be made. `whole`: training leaves a model, not an adapter."""
    if "gguf" in after and (why := unconvertible(size.architecture if size else "")):
        found.refuse("after", f"[{', '.join(after)}]", why, "leave gguf out")
    if "quantize" in after and size is not None:
        refuse_quantizing(found, size)
    if "gguf" in after and (missing := without_llama_cpp(found.hardware)):
        found.refuse("after", f"[{', '.join(after)}]", missing.why, f"{missing.way_out}, or leave gguf out")
    for name in found.job.publish.products or [] if "publish" in after else []:
        maker = MAKERS[name]
        if maker is not None and maker not in after:
            found.refuse("publish.products", name, f"the job has no stage {maker}", f"add {maker} to `after`")
        if name == "adapter" and whole:
            why = f"method {found.job.method.type} leaves a model, no adapter"
            found.refuse("publish.products", name, why, "publish the model")


def unconvertible(architecture: str) -> str:
    """Why gguf does not convert a model of this `model_type`; empty where it does, or that is not known."""
    if not architecture or architecture in GGUF_ARCHITECTURES:
        return ""
    return f"the model is a {architecture}, and gguf converts {listed(list(GGUF_ARCHITECTURES))}"


def refuse_quantizing(found: Findings, size: Dimensions) -> None:
    """Refuse a model whose weights GPTQ has no form for, or none in groups of that size."""
    group_size = found.job.quantize.group_size
    if size.experts:
        why = "the model is a mixture of experts, which GPTQ's files don't hold as transformers does"
        found.refuse("after", "quantize", why, "leave quantize out")
    elif wrong := misfit(size.linear_shapes, group_size):
        found.refuse("quantize.group_size", group_size, *wrong)


def without_llama_cpp(hardware: Hardware) -> Refusal | None:
    """Why the stage gguf would find no llama.cpp where it runs; None where it does."""
    if isinstance(hardware, ThisMachine):
        return (
            None if hardware.machine.llama_cpp else Refusal(NOT_INSTALLED, "run `make gguf` (once, minutes)")
        )
    if hardware.profile.image.gguf:
        return None
    why = f"gguf needs llama.cpp, and the image of {hardware.name} is without it"
    return Refusal(why, "add `gguf: true` to `image` in its profile")


def published(found: Findings, after: Sequence[After], *, whole: bool) -> list[Product]:
    """What the stage `publish` takes."""
    if "publish" not in after:
        return []
    if found.job.publish.products is not None:
        return list(found.job.publish.products)
    made: list[Product] = [name for name, maker in MAKERS.items() if maker in after]
    if "model" not in made:
        made.insert(0, "model" if whole else "adapter")
    found.say("publish.products", made, "what the job makes")
    return made
