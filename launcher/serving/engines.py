"""Which engine answers for a source, and vLLM's command line. Decisions alone: nothing is started here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

from artifacts.contract import Source
from launcher.errors import Problem, UserError
from launcher.machine import Gpu

EngineName = Literal["transformers", "llama.cpp", "vllm"]
ENGINES = ("auto", *get_args(EngineName))

#: What `--max-lora-rank` may be (vllm/config/lora.py, v0.26: MaxLoRARanks).
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def choose_engine(asked: str, source: Source, *, gpus: Sequence[Gpu], has_vllm: bool) -> EngineName:
    """The engine that was asked for, or for `auto`: llama.cpp for a GGUF file, vLLM where it and a GPU are
    there and it can serve the model, else transformers. Raises UserError for one that can't serve it."""
    if asked not in ENGINES:
        raise _refused(asked, f"is none of {', '.join(ENGINES)}")
    if source.gguf is not None:
        if asked not in ("auto", "llama.cpp"):
            raise _refused(asked, "does not serve GGUF files here", "leave --engine out")
        return "llama.cpp"
    if asked == "llama.cpp":
        raise _refused(
            asked,
            f"serves GGUF files; {source.name} is a model folder",
            "`slipway export` makes a GGUF file of it, or leave --engine out",
        )
    obstacle = vllm_obstacle(_adapter_config(source))
    if asked == "vllm":
        if not has_vllm:
            raise _refused(
                asked, "there is no `vllm` on PATH", "install it (docs.vllm.ai), or leave --engine out"
            )
        if not gpus:
            raise _refused(asked, "this machine has no NVIDIA GPU", "leave --engine out")
        if obstacle:
            raise _refused(asked, f"it can't serve this adapter: {obstacle}", "serve the merged model")
        return "vllm"
    return "vllm" if asked == "auto" and has_vllm and gpus and not obstacle else "transformers"


def vllm_obstacle(adapter: dict[str, Any] | None) -> str | None:
    """Why vLLM can't serve an adapter of this configuration, or would leave a part of it out (vllm.lora
    .peft_helper refuses the first four; patterns of alpha it does not read)."""
    if adapter is None:
        return None
    if adapter.get("peft_type") != "LORA":
        return f"its method is {adapter.get('peft_type')}"
    refused = {
        "use_dora": "it is DoRA",
        "modules_to_save": "it holds whole modules",
        "trainable_token_indices": "it holds new tokens' embeddings",
        "alpha_pattern": "its alpha differs between modules",
        "lora_bias": "it holds biases",
    }
    if reasons := [why for name, why in refused.items() if adapter.get(name)]:
        return reasons[0]
    if adapter.get("bias", "none") != "none":
        return "it holds biases"
    if _rank(adapter) > _LORA_RANKS[-1]:
        return f"its rank is above {_LORA_RANKS[-1]}"
    return None


def vllm_command(source: Source, *, host: str, port: int) -> list[str]:
    """`vllm serve …` for a model folder or a base with an adapter, which then has the source's name.

    Quantization is left to vLLM, which reads it from the model's config.json and takes its fastest kernel
    for it (naming `gptq` would take the slow one). The API key is no argument: vLLM reads VLLM_API_KEY.
    """
    assert source.folder is not None
    command = ["vllm", "serve", str(source.folder), "--host", host, "--port", str(port)]
    adapter = _adapter_config(source)
    if adapter is None:
        command += ["--served-model-name", source.name]
    else:
        rank = next(rank for rank in _LORA_RANKS if rank >= _rank(adapter))
        command += [
            "--served-model-name",
            f"{source.name}-base",
            "--enable-lora",
            "--max-lora-rank",
            str(rank),
        ]
        command += ["--lora-modules", f"{source.name}={source.adapter}"]
    if source.tokenizer is not None:
        command += ["--tokenizer", str(source.tokenizer)]
    template = (source.tokenizer or source.folder) / "chat_template.jinja"
    if template.is_file():
        command += ["--chat-template", str(template)]
        if "<tool_call>" in template.read_text(encoding="utf-8"):  # Hermes' format, which Qwen's is
            command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    return [*command, "--trust-remote-code"] if source.trust_remote_code else command


def vllm_environment(environment: dict[str, str], api_key: str | None) -> dict[str, str]:
    """Without vLLM's usage reports, and without a look at the hub: all files are here."""
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    return {**environment, **quiet, **({"VLLM_API_KEY": api_key} if api_key else {})}


def _adapter_config(source: Source) -> dict[str, Any] | None:
    if source.adapter is None:
        return None
    config: dict[str, Any] = json.loads((source.adapter / "adapter_config.json").read_bytes())
    return config


def _rank(adapter: dict[str, Any]) -> int:
    return max([int(adapter.get("r") or 1), *map(int, (adapter.get("rank_pattern") or {}).values())])


def _refused(engine: str, why: str, way_out: str = "") -> UserError:
    return UserError(Problem(where="", what=f"--engine {engine}", why=why, way_out=way_out))
