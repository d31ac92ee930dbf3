"""What is made of the trained model: which products, for which architectures, published as what."""

from __future__ import annotations

from collections.abc import Sequence

from artifacts.contract import Product
from launcher.dimensions import Dimensions
from launcher.planning.findings import Findings
from launcher.spec.products import After
from launcher.spec.words import listed

#: `model_type`s that the stage `gguf` converts: llama.cpp knows more, these are tested here.
GGUF_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
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
