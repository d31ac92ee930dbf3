"""A model that has learnt a made-up language, and the stage `quantize` as a process over it."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.contract import IGNORED_LABEL, QuantizeParams, StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import Manifest, write_marker
from tests import plan_parts
from tests.train import training
from train.stage import StageContext

GROUP_SIZE = 32
_FOLLOWERS = 4  # of each token
_STEPS, _BATCH, _LENGTH = 120, 16, 32


def sentences(count: int, seed: int, length: int = _LENGTH) -> list[list[int]]:
    """Each token is followed by one of four, mostly by the one that the token before it decides."""
    followers = np.random.default_rng(0).integers(1, training.VOCABULARY, (training.VOCABULARY, _FOLLOWERS))
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = [0, int(random.integers(1, training.VOCABULARY))]
        while len(tokens) <= length:
            likely = tokens[-2] % _FOLLOWERS if random.random() < 0.8 else int(random.integers(_FOLLOWERS))
            tokens.append(int(followers[tokens[-1], likely]))
        made.append(tokens[1:])
    return made


def write_learnt(folder: Path) -> Path:
    """A two-layer Qwen3 trained on such sentences, with the files that lie beside a model's weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=training.VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = torch.tensor(sentences(_STEPS * _BATCH, seed=1)).view(_STEPS, _BATCH, -1)
    for batch in batches:
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.3, "do_sample": true}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "modeling_own.py").write_text("# remote code")
    return folder


def write_prepared(folder: Path) -> Path:
    """Packed training rows and an evaluation split, the latter half of each sentence learnt."""
    for split, rows in {"train": 40, "eval": 20}.items():
        made = [
            (tokens, [IGNORED_LABEL] * (_LENGTH // 2) + tokens[_LENGTH // 2 :])
            for tokens in sentences(rows, seed=2 if split == "train" else 3)
        ]
        training.write_split(folder, split, training.pack(made, 3 * _LENGTH))
    return folder


def context(root: Path, model: Path, prepared: Path, params: QuantizeParams) -> StageContext:
    store = LocalStore(root / "store")
    for prefix, folder in {"merged/m": model, "prepared/p": prepared}.items():
        write_marker(store, prefix, Manifest(files=[], location=folder.absolute().as_uri()))
    stage = plan_parts.stage(StageKind.QUANTIZE, params, "k", model="merged/m", prepare="prepared/p")
    events = Events(store, "run", "quantize")
    return StageContext(plan_parts.plan(store, [stage]), "run", stage, store, root / "work", events)


def start(root: Path, model: Path, prepared: Path, params: QuantizeParams) -> Any:
    """The stage as a process, forked as the stage host's from one that has the libraries; its home is
    `root`/home, its output `root`/log."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["tests.train.preloaded"])
    process = forkserver.Process(target=_stage, args=(root, model, prepared, params))
    process.start()
    return process


def _stage(root: Path, model: Path, prepared: Path, params: QuantizeParams) -> None:
    from train.__main__ import run_stage

    for folder in (root / "home", root / "cwd"):
        folder.mkdir(parents=True)
    os.environ["HOME"] = str(root / "home")
    os.chdir(root / "cwd")
    log = os.open(root / "log", os.O_WRONLY | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os._exit(run_stage(context(root, model, prepared, params)))


def read_report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "quantization.json").read_text())
