"""Whether documents that share a sequence see each other.

transformers tells packed documents apart by position ids that restart (with no attention mask and no cache).
Some architectures ignore that, silently: their documents leak into each other. The probe changes one
document and looks whether the other's logits move.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.stage import StageUserError

if TYPE_CHECKING:
    import torch

#: Architectures that were probed, and are again by `tests/train/test_isolation.py`: torch isn't imported.
KNOWN_ISOLATED = frozenset(
    f"{name}ForCausalLM"
    for name in ("Gemma3", "Glm", "Llama", "Mistral", "Phi3", "Qwen2", "Qwen3", "Qwen3Moe")
)

_DOCUMENT_TOKENS = 12
#: Relative to the largest logit. An isolated document's logits differ by rounding (below 1e-6 in fp32).
_TOLERANCE = 1e-4


def require_isolation(model: Path, *, trust_remote_code: bool = False) -> None:
    """Raises StageUserError where packed documents would see each other in the model of that folder."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or ["?"])[0]
    # Remote code may do as it likes under a known name.
    if architecture in KNOWN_ISOLATED and "auto_map" not in config:
        return
    moved = probe_folder(model, trust_remote_code=trust_remote_code)
    if moved > _TOLERANCE:
        raise StageUserError(
            f"packed documents would see each other in {architecture} (logits move by {moved:.0%})",
            "set training.packing: false",
        )


def probe_folder(model: Path, *, trust_remote_code: bool = False) -> float:
    """`leak` of a tiny twin of the folder's architecture."""
    from train.rehearsal import shrunk_model

    return leak(shrunk_model(model, trust_remote_code=trust_remote_code))


def leak(model: torch.nn.Module) -> float:
    """How far the second document's logits move when the first is another one: the largest difference over
    the largest logit. 0 where documents are isolated, up to rounding."""
    import torch

    vocabulary = min(model.get_input_embeddings().num_embeddings, 1000)
    generator = torch.Generator().manual_seed(0)

    def tokens() -> torch.Tensor:
        return torch.randint(0, vocabulary, (1, _DOCUMENT_TOKENS), generator=generator)

    first, other, second = tokens(), tokens(), tokens()
    positions = torch.arange(_DOCUMENT_TOKENS).repeat(2)[None]
    arguments: dict[str, Any] = {"position_ids": positions, "use_cache": False}
    model.eval()
    with torch.no_grad():
        try:
            logits = [
                model(input_ids=torch.cat([before, second], 1), **arguments).logits[:, _DOCUMENT_TOKENS:]
                for before in (first, other)
            ]
        except TypeError:  # no position ids at all: nothing could tell the documents apart
            return 1.0
    return ((logits[0] - logits[1]).abs().max() / logits[0].abs().max()).item()
