"""Which engine serves a model, vLLM's command line, and what is told of a server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Source
from launcher.commands.serve import told
from launcher.errors import UserError
from launcher.machine import Gpu
from launcher.serving import servers
from launcher.serving.engines import choose_engine, vllm_command, vllm_environment, vllm_obstacle
from launcher.serving.servers import Served, require_packages

GPU = Gpu("NVIDIA H100 80GB HBM3", 80 * 1024**3)
LORA = {"peft_type": "LORA", "r": 12, "bias": "none"}


def folder_source(folder: Path) -> Source:
    return Source(name="bot", folder=folder)


def adapter_source(folder: Path, **config: Any) -> Source:
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "adapter_config.json").write_text(json.dumps(LORA | config))
    return Source(name="bot", folder=folder, adapter=adapter, tokenizer=folder)


@pytest.mark.parametrize(
    ("gpus", "has_vllm", "chosen"),
    [([GPU], True, "vllm"), ([], True, "transformers"), ([GPU], False, "transformers")],
)
def test_auto(tmp_path: Path, gpus: list[Gpu], has_vllm: bool, chosen: str) -> None:
    source = folder_source(tmp_path)
    assert choose_engine("auto", source, gpus=gpus, has_vllm=has_vllm) == chosen
    gguf = Source(name="bot", gguf=tmp_path / "a.gguf")
    assert choose_engine("auto", gguf, gpus=gpus, has_vllm=has_vllm) == "llama.cpp"


def test_an_adapter_that_vllm_can_not_serve(tmp_path: Path) -> None:
    source = adapter_source(tmp_path, use_dora=True)
    assert choose_engine("auto", source, gpus=[GPU], has_vllm=True) == "transformers"
    with pytest.raises(UserError, match="it is DoRA; serve the merged model"):
        choose_engine("vllm", source, gpus=[GPU], has_vllm=True)


@pytest.mark.parametrize(
    ("config", "obstacle"),
    [
        ({}, None),
        ({"use_rslora": True}, None),
        ({"peft_type": "PREFIX_TUNING"}, "its method is PREFIX_TUNING"),
        ({"modules_to_save": ["lm_head"]}, "it holds whole modules"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "it holds new tokens' embeddings"),
        ({"alpha_pattern": {"q_proj": 4}}, "its alpha differs between modules"),
        ({"bias": "all"}, "it holds biases"),
        ({"rank_pattern": {"q_proj": 600}}, "its rank is above 512"),
    ],
)
def test_vllm_obstacles(config: dict[str, Any], obstacle: str | None) -> None:
    assert vllm_obstacle(LORA | config) == obstacle


@pytest.mark.parametrize("asked", ["vllm", "llama.cpp", "ollama"])
def test_engines_that_are_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(UserError, match=f"--engine {asked}"):
        choose_engine(asked, folder_source(tmp_path), gpus=[], has_vllm=True)


def test_a_gguf_file_has_one_engine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--engine transformers: does not serve GGUF"):
        choose_engine("transformers", Source(name="a", gguf=tmp_path / "a.gguf"), gpus=[], has_vllm=False)


def test_vllm_command(tmp_path: Path) -> None:
    assert vllm_command(folder_source(tmp_path), host="127.0.0.1", port=8000) == [
        *["vllm", "serve", str(tmp_path), "--host", "127.0.0.1", "--port", "8000"],
        *["--served-model-name", "bot"],
    ]
    (tmp_path / "chat_template.jinja").write_text("… <tool_call> …")
    source = adapter_source(tmp_path, rank_pattern={"q_proj": 20})
    assert vllm_command(source, host="0.0.0.0", port=80)[7:] == [
        *["--served-model-name", "bot-base", "--enable-lora", "--max-lora-rank", "32"],
        *["--lora-modules", f"bot={source.adapter}", "--tokenizer", str(tmp_path)],
        *["--chat-template", str(tmp_path / "chat_template.jinja")],
        *["--enable-auto-tool-choice", "--tool-call-parser", "hermes"],
    ]


def test_vllm_gets_the_key_in_its_environment(tmp_path: Path) -> None:
    given = vllm_environment({"PATH": "/bin"}, "s3cret")
    assert given["VLLM_API_KEY"] == "s3cret" and given["VLLM_NO_USAGE_STATS"] == "1"
    assert "VLLM_API_KEY" not in vllm_environment({}, None)


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.importlib.util, "find_spec", lambda name: None if name == "nicegui" else name)
    with pytest.raises(UserError, match=r"nicegui is not in .*; `make setup-serve` installs"):
        require_packages("transformers", folder_source(tmp_path))


def test_what_is_told_can_be_run() -> None:
    served = Served("it's a bot", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", "bfloat16, cpu")
    lines = told(served, protected=True).splitlines()
    call = "\n".join(lines[lines.index("  API   http://127.0.0.1:8000/v1") + 2 :][:2])
    shown = subprocess.run(
        ["bash", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}; {call}"],
        env={"SLIPWAY_API_KEY": "k"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "Authorization: Bearer k" in shown
    assert json.loads(shown[-1])["model"] == "it's a bot"
    compile("\n".join(line[2:] for line in lines if line.startswith("  ") and "=" in line), "told", "exec")
    assert "page" not in told(Served("bot", "http://h/v1", None, ""), protected=False)
