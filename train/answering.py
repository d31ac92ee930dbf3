"""Answers of one model to many questions: greedy, in left-padded batches of similar lengths. And how likely
it finds the reference answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.contract import IGNORED_LABEL
from train import sharding
from train.data.loading import load_chat_tokenizer
from train.data.tokenize import ChatTokenizer
from train.questions import Encoded, Question, batches, encode_question
from train.stage import StageUserError


@dataclass(frozen=True)
class Answer:
    """`reference_loss`: minus the log-probability (natural) of the `reference_tokens` of the reference, its
    end of turn among them."""

    text: str
    reference_loss: float
    reference_tokens: int


@dataclass(frozen=True)
class ModelSource:
    """A model folder, and beside it a PEFT adapter where the model is a base with one.

    `tokenizer`: the folder of the tokenizer and template that prompts are written with, so that base and
    tuned model are asked with the same tokens; None: the model's own.
    """

    name: str  # "base" or "tuned"
    folder: Path
    adapter: Path | None = None
    trust_remote_code: bool = False
    tokenizer: Path | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    @property
    def weight_bytes(self) -> int:
        """Of one weight in its files; 2 where the configuration does not say."""
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return 4 if (config.get("dtype") or config.get("torch_dtype")) == "float32" else 2


def answer(
    source: ModelSource,
    questions: Sequence[Question],
    *,
    device: str,
    precision: str,
    max_new_tokens: int,
    batch_size: int,
    threads: int | None = None,
    shard: sharding.Shard | None = None,
) -> Iterator[list[tuple[int, Answer]]]:
    """Load the model, then yield (index of the question, answer) batch by batch, longest prompts first: a
    batch that does not fit fails at once, not after an hour. With a `shard` this process holds its part of
    the model and answers its part of the questions; all of them must be called. Raises StageUserError."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    tokenizer = load_chat_tokenizer(
        source.tokenizer or source.folder, trust_remote_code=source.trust_remote_code
    )
    encoded = [encode_question(tokenizer, question) for question in questions]
    if shard is not None:
        sharding.join(shard, device)
    model = load_model(source, device, precision, shard)
    make_room(model, tokenizer, sharded=shard is not None)
    stop_ids = stop_token_ids(model.generation_config.eos_token_id, tokenizer)
    set_greedy(model, max_new_tokens, stop_ids)
    if source.adapter is not None:
        from train.methods import load_adapter

        model = load_adapter(model, source.adapter).eval()
    rank, size = (shard.rank, shard.size) if shard else (0, 1)
    for turn in sharding.turns(batches([len(each.prompt) for each in encoded], batch_size), rank, size):
        asked = [encoded[index] for index in turn.batch]
        # Not inference_mode: gathered weights are freed and filled again in place.
        with torch.no_grad():
            texts = [
                decode(tokenizer, ids)
                for ids in generate(model, [each.prompt for each in asked], stop_ids, synced=size > 1)
            ]
            losses = reference_losses(model, asked)
        if not turn.is_filler:
            answers = zip(texts, losses, asked, strict=True)
            yield [
                (index, Answer(text, loss, sum(each.learnt)))
                for index, (text, loss, each) in zip(turn.batch, answers, strict=True)
            ]


def load_model(source: ModelSource, device: str, precision: str, shard: sharding.Shard | None = None) -> Any:
    """The model, or this process's part of it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from train.dtypes import DTYPES

    dtype = DTYPES[precision]
    common: dict[str, Any] = {"trust_remote_code": source.trust_remote_code, "local_files_only": True}
    if shard is None:
        return AutoModelForCausalLM.from_pretrained(source.folder, dtype=dtype, **common).to(device).eval()
    config = AutoConfig.from_pretrained(source.folder, **common)
    spread = sharding.options(config, shard.size, trust_remote_code=source.trust_remote_code)
    model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=dtype, **common, **spread)
    sharding.check(model, shard)
    return model.eval()


def make_room(model: Any, tokenizer: ChatTokenizer, *, sharded: bool) -> None:
    """Rows for tokens that the template added and the untuned model never had, as training starts with them.
    Raises StageUserError for a sharded model, which can't grow."""
    rows = model.get_input_embeddings().num_embeddings
    new = {token: number for token, number in tokenizer.backend.get_vocab().items() if number >= rows}
    if new and sharded:
        raise StageUserError(
            f"the untuned model has no embedding of {', '.join(new)}, and is too large to be given one here",
            "set predict.base: false",
        )
    if new:
        from train.methods import tokens

        tokens.resize(model, new)


def stop_token_ids(declared: int | list[int] | None, tokenizer: ChatTokenizer) -> list[int]:
    """Tokens that end an answer: those that the model declares, EOS, and the template's end-of-turn marker (a
    base model's config knows nothing of it)."""
    declared = [] if declared is None else [declared] if isinstance(declared, int) else declared
    marker = tokenizer.backend.token_to_id(tokenizer.template.end_of_turn)
    return sorted({*declared} | {token for token in (tokenizer.eos_id, marker) if token is not None})


def set_greedy(model: Any, max_new_tokens: int, stop_ids: list[int]) -> None:
    """Replace the model's own generation settings (temperature, repetition penalty): `generate` would fill in
    from them whatever a call leaves out."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_ids or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,  # masked: any id will do
        use_cache=True,
    )


def generate(
    model: Any, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int], *, synced: bool = False
) -> list[list[int]]:
    """The new token ids of each prompt, without the stop token. `synced`: the other ranks of a sharded model
    go on until all are done."""
    import torch

    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), model.generation_config.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        attention_mask[row, width - len(ids) :] = 1
    device = next(model.parameters()).device
    output = model.generate(
        input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), synced_gpus=synced
    )
    return [until_stop(ids, stop_ids) for ids in output[:, width:].tolist()]


def reference_losses(model: Any, asked: Sequence[Encoded]) -> list[float]:
    """Minus the log-probability of each reference's tokens. Padding lies on the right, where no token looks,
    so there is no mask."""
    import torch
    from torch.nn.functional import cross_entropy

    from train.loss import slices_logits

    width = max(len(each.whole) for each in asked)
    device = next(model.parameters()).device
    input_ids = torch.zeros(len(asked), width, dtype=torch.long)
    targets = torch.full_like(input_ids, IGNORED_LABEL)
    for row, each in enumerate(asked):
        input_ids[row, : len(each.whole)] = torch.tensor(each.whole)
        learnt = torch.tensor(each.learnt[1:])  # each position predicts the next
        targets[row, : len(learnt)][learnt] = input_ids[row, 1 : len(learnt) + 1][learnt]
    kept = width - min((targets != IGNORED_LABEL).int().argmax(1).tolist())  # none before the first reference
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    sliced = {"logits_to_keep": kept} if slices_logits(base) else {}
    logits = model(input_ids=input_ids.to(device), use_cache=False, **sliced).logits[:, -kept:]
    targets = targets[:, -kept:]
    losses = []
    for row in range(len(asked)):  # one at a time: logits in float32 are large
        learnt = targets[row] != IGNORED_LABEL
        picked = logits[row][learnt.to(device)].float()
        losses.append(float(cross_entropy(picked, targets[row][learnt].to(device), reduction="sum")))
    return losses


def until_stop(ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(ids) if token in stop_ids), len(ids))
    return list(ids[:end])


def decode(tokenizer: ChatTokenizer, ids: Sequence[int]) -> str:
    """Text without special tokens, up to an end-of-turn marker that is plain text."""
    text = tokenizer.backend.decode(list(ids), skip_special_tokens=True)
    marker = tokenizer.template.end_of_turn.strip()
    return text.partition(marker)[0] if marker else text
