"""Answers of one model to many prompts: greedy, in left-padded batches of similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.data.loading import load_chat_tokenizer
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer
from train.stage import StageUserError

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class ModelSource:
    """A model folder, and beside it a PEFT adapter where the model is a base with one."""

    name: str  # "base" or "tuned"
    folder: Path
    adapter: Path | None = None
    trust_remote_code: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))


def answer(
    source: ModelSource,
    prompts: Sequence[Messages],
    *,
    device: str,
    precision: str,
    max_new_tokens: int,
    batch_size: int,
    threads: int | None = None,
) -> Iterator[list[tuple[int, str]]]:
    """Load the model, then yield (index of the prompt, answer) batch by batch, longest prompts first: a batch
    that does not fit fails at once, not after an hour. Raises StageUserError."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    tokenizer = load_chat_tokenizer(source.folder, trust_remote_code=source.trust_remote_code)
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    model = load_model(source, device, precision)
    stop_ids = stop_token_ids(model.generation_config.eos_token_id, tokenizer)
    set_greedy(model, max_new_tokens, stop_ids)
    if source.adapter is not None:
        from train.methods import load_adapter

        model = load_adapter(model, source.adapter).eval()
    for batch in batches([len(ids) for ids in prompt_ids], batch_size):
        answers = generate(model, [prompt_ids[index] for index in batch], stop_ids)
        yield [(index, decode(tokenizer, ids)) for index, ids in zip(batch, answers, strict=True)]


def encode_prompt(tokenizer: ChatTokenizer, prompt: Messages) -> list[int]:
    """Raises StageUserError for a question that the chat template refuses."""
    try:
        return tokenizer.encode_prompt(prompt)
    except TemplateError as error:
        raise StageUserError(
            f"test question {prompt[-1]['content'][:60]!r}: {error}", "mend or remove the record"
        ) from error


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in groups of at most `batch_size`, from the longest to the shortest."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def load_model(source: ModelSource, device: str, precision: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    model = AutoModelForCausalLM.from_pretrained(
        source.folder, dtype=dtype, trust_remote_code=source.trust_remote_code, local_files_only=True
    )
    return model.to(device).eval()


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


def generate(model: Any, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int]) -> list[list[int]]:
    """The new token ids of each prompt, without the stop token."""
    import torch

    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), model.generation_config.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        attention_mask[row, width - len(ids) :] = 1
    with torch.inference_mode():
        output = model.generate(
            input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device)
        )
    return [until_stop(ids, stop_ids) for ids in output[:, width:].tolist()]


def until_stop(ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(ids) if token in stop_ids), len(ids))
    return list(ids[:end])


def decode(tokenizer: ChatTokenizer, ids: Sequence[int]) -> str:
    """Text without special tokens, up to an end-of-turn marker that is plain text."""
    text = tokenizer.backend.decode(list(ids), skip_special_tokens=True)
    marker = tokenizer.template.end_of_turn.strip()
    return text.partition(marker)[0] if marker else text
