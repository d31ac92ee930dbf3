"""How long, and at which learning rate."""

from __future__ import annotations

from launcher.planning.findings import Findings

DEFAULT_EPOCHS = 3.0
#: Peak learning rates. Full and LoRA: what the guides of the models use; prompts and adapters learn slower at
#: the same rate (PEFT's examples: 1e-2 to 3e-2; LLaMA-Adapter 9e-3; IA3 8e-3).
DEFAULT_LEARNING_RATE = {
    "full": 2e-5,
    "partial": 2e-5,
    "lora": 2e-4,
    "prefix_tuning": 1e-2,
    "p_tuning_v2": 2e-2,
    "prompt_tuning": 3e-2,
    "llama_adapter": 9e-3,
    "ia3": 8e-3,
}
DEFAULT_WARMUP_SHARE = 0.03


def epochs(found: Findings) -> float | None:
    training = found.job.training
    if training.epochs is None and training.steps is None:
        found.say("training.epochs", DEFAULT_EPOCHS, "the default")
        return DEFAULT_EPOCHS
    return training.epochs


def learning_rate(found: Findings) -> float:
    if found.job.training.learning_rate is not None:
        return found.job.training.learning_rate
    method = found.job.method.type
    rate = DEFAULT_LEARNING_RATE[method]
    found.say("training.learning_rate", rate, f"the default of method {method}")
    return rate


def warmup_share(found: Findings) -> float | None:
    training = found.job.training
    if training.warmup_steps is None and training.warmup_share is None:
        found.say("training.warmup_share", DEFAULT_WARMUP_SHARE, "the default, of all steps")
        return DEFAULT_WARMUP_SHARE
    return training.warmup_share
