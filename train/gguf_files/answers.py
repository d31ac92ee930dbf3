"""Greedy answers of a GGUF file beside those that transformers gives with the model it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer
from train.gguf_files.texts import QUESTIONS
from train.stage import StageError, StageUserError

MAX_NEW_TOKENS = 24
#: How far logits may move by rounding, as a share of their standard deviation: the mean of their differences
#: (root mean square), and the lead of one token over another that either may win. By the precision that the
#: reference is computed in. Twins of all four families moved by 0.0015 and 0.015; deeper models by more.
ROUNDING = {"fp32": 0.02, "bf16": 0.15}
_ROOM = 1.4  # of the weights' bytes: activations, cache, reading
_KEPT = 32  # likeliest tokens of a step that are remembered


@dataclass(frozen=True)
class Step:
    """One position of an answer: the likeliest tokens with their logits, likeliest first, and the standard
    deviation of all logits there."""

    tokens: np.ndarray
    logits: np.ndarray
    spread: float

    @property
    def token(self) -> int:
        return int(self.tokens[0])

    def lead_over(self, token: int) -> float:
        """How far the likeliest token is ahead of `token`, in standard deviations; infinite for one that is
        not among the likeliest."""
        at = np.flatnonzero(self.tokens == token)
        return float(self.logits[0] - self.logits[at[0]]) / self.spread if len(at) else float("inf")


@dataclass(frozen=True)
class Reference:
    """What transformers answers: a list of steps for each prompt, the token that ends the answer included."""

    prompts: list[list[int]]
    answers: list[list[Step]]
    stop_ids: list[int]
    precision: str


@dataclass(frozen=True)
class Comparison:
    """Of a file with the reference. `same`: answers equal token for token. `near_ties`: answers that part
    where the reference nearly ties. `agreement`: share of all positions of the reference's answers at which
    the file finds the same token likeliest, each given the reference's tokens before it. `drift`: how far the
    logits of the likeliest tokens are from the reference's there (root mean square), in standard deviations
    of all logits."""

    same: int
    near_ties: int
    answers: int
    agreement: float
    drift: float

    @property
    def share(self) -> float:
        return round(self.same / self.answers, 4)


def place(size_bytes: int, *, gpu_bytes: int, memory_bytes: int) -> tuple[str, str]:
    """Device and precision of the reference for a model of `size_bytes` in 16 bits: 32 bits where they fit,
    a GPU where either fits; else the cores in 16 bits."""
    for device, room in (("cuda", gpu_bytes), ("cpu", memory_bytes)):
        if room >= 2 * size_bytes * _ROOM:
            return device, "fp32"
        if device == "cuda" and room >= size_bytes * _ROOM:
            return device, "bf16"
    return "cpu", "bf16"


def prompts(tokenizer: ChatTokenizer) -> list[list[int]]:
    """The questions as the model is asked them; as plain text where it has no chat template for them."""
    try:
        return [tokenizer.encode_prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    except (TemplateError, StageUserError):
        return [tokenizer.backend.encode(question).ids for question in QUESTIONS]


def reference(folder: Path, tokenizer: ChatTokenizer, device: str, precision: str) -> Reference:
    """Load the model with transformers and answer greedily, all prompts in one batch."""
    import torch

    from train.answering import ModelSource, load_model, set_greedy, stop_token_ids

    asked = prompts(tokenizer)
    model = load_model(ModelSource("merged", folder), device, precision)
    stops = stop_token_ids(model.generation_config.eos_token_id, tokenizer)
    set_greedy(model, MAX_NEW_TOKENS, stops)
    width = max(map(len, asked))
    input_ids = torch.full((len(asked), width), model.generation_config.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(asked):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        attention_mask[row, width - len(ids) :] = 1
    with torch.inference_mode():
        output = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            output_logits=True,
            return_dict_in_generate=True,
        )
    answers: list[list[Step]] = [[] for _ in asked]
    for logits in output.logits:
        best = logits.float().topk(min(_KEPT, logits.shape[-1]))
        spread = logits.float().std(-1)
        for row, steps in enumerate(answers):
            if not steps or steps[-1].token not in stops:
                kept = (best.indices[row].cpu().numpy(), best.values[row].cpu().numpy())
                steps.append(Step(*kept, float(spread[row])))
    return Reference(asked, answers, stops, precision)


def compare(file: Path, expected: Reference, threads: int) -> Comparison:
    """Load the file with llama.cpp and answer the same prompts. Raises StageError for logits that are no
    numbers."""
    from llama_cpp import Llama

    longest = max(len(prompt) for prompt in expected.prompts) + MAX_NEW_TOKENS
    options: dict[str, Any] = {"n_threads": threads, "n_threads_batch": threads, "verbose": False}
    model = Llama(str(file), n_ctx=longest, logits_all=True, **options)
    same = near_ties = agreeing = 0
    drifts: list[float] = []
    for prompt, steps in zip(expected.prompts, expected.answers, strict=True):
        given = _answer(model, prompt, expected.stop_ids)
        wanted = [step.token for step in steps]
        same += given == wanted
        near_ties += given != wanted and is_near_tie(steps, given, ROUNDING[expected.precision])
        for step, logits in zip(steps, _logits(model, prompt, wanted), strict=True):
            agreeing += _likeliest(logits) == step.token
            drifts.append(float(np.square(logits[step.tokens] - step.logits).mean()) / step.spread**2)
    drift = float(f"{np.sqrt(np.mean(drifts)):.3g}")
    return Comparison(same, near_ties, len(expected.answers), round(agreeing / len(drifts), 4), drift)


def is_near_tie(steps: Sequence[Step], given: Sequence[int], bound: float) -> bool:
    """Whether `given` leaves the reference's steps where the token that it takes is as good as theirs."""
    parting = (
        step.lead_over(token) for step, token in zip(steps, given, strict=False) if step.token != token
    )
    return next(parting, float("inf")) <= bound


def check_16_bits(found: Comparison, precision: str) -> None:
    """Raises StageError unless the logits are the reference's but for rounding, and every answer is the
    reference's or parts from it at a near-tie."""
    different = found.answers - found.same - found.near_ties
    if different or not found.drift <= ROUNDING[precision]:
        raise StageError(
            f"the f16 file answers {different} of {found.answers} questions otherwise than transformers; its "
            f"logits are off by {found.drift:.2g} standard deviations, {ROUNDING[precision]} is allowed",
            "nothing was written: llama.cpp computes something else than the model",
        )


def _answer(model: Any, prompt: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    model.reset()
    model.eval(prompt)
    answer: list[int] = []
    while len(answer) < MAX_NEW_TOKENS:
        answer.append(_likeliest(model.scores[model.n_tokens - 1]))
        if answer[-1] in stop_ids:
            break
        if len(answer) < MAX_NEW_TOKENS:
            model.eval(answer[-1:])
    return answer


def _logits(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    """The logits behind each token of the answer, given those before it: (tokens, vocabulary)."""
    model.reset()
    model.eval([*prompt, *answer[:-1]])
    return model.scores[len(prompt) - 1 : len(prompt) - 1 + len(answer)]


def _likeliest(logits: np.ndarray) -> int:
    if not np.isfinite(logits).all():
        raise StageError(
            "the file's logits are no numbers", "a weight is beyond what 16 bits hold: nothing was written"
        )
    return int(logits.argmax())
