"""An adapter by the names and shapes of the base's files, and what comes along with the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import ModelParams
from train.merge import _check_revision
from train.merging.adapter import Adapter
from train.merging.companions import companions
from train.merging.fitting import fitted, names_in
from train.merging.tensors import StoredTensor
from train.merging.updates import LoraUpdate
from train.stage import StageUserError


def stored(*shape: int) -> StoredTensor:
    return StoredTensor("", "F32", shape, Path(), 0, 0)


def lora(out: int, into: int, *, transposed: bool = False) -> LoraUpdate:
    return LoraUpdate(stored(4, into), stored(out, 4), 1.0, transposed=transposed)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (["h.0.attn.weight", "wte.weight"], ["h.0.attn.weight", "lm_head.weight", "wte.weight"]),
        (
            ["transformer.h.0.attn.weight", "transformer.wte.weight"],
            ["transformer.h.0.attn.weight", "lm_head.weight", "transformer.wte.weight"],
        ),
        (
            ["model.h.0.attn.weight"],  # another model: its names stay, for the message
            ["transformer.h.0.attn.weight", "lm_head.weight", "transformer.wte.weight"],
        ),
    ],
    ids=["without the prefix", "with it", "another model"],
)
def test_names_are_those_of_the_files(base: list[str], expected: list[str]) -> None:
    names = ["transformer.h.0.attn.weight", "lm_head.weight", "transformer.wte.weight"]
    assert names_in({name: stored(1) for name in base}, names) == expected


@pytest.mark.parametrize("said", [False, True])
def test_matrices_are_turned_as_the_base_has_them(said: bool) -> None:
    """GPT-2's blocks are (in, out), its head is (out, in): PEFT leaves in the configuration what the layer
    that came last made of it."""
    updates = {
        "attn.weight": lora(96, 32, transposed=said),
        "proj.weight": lora(32, 32, transposed=said),
        "lm_head.weight": lora(100, 32, transposed=said),
    }
    shapes = {"attn.weight": (32, 96), "proj.weight": (32, 32), "lm_head.weight": (100, 32)}
    base = {name: stored(*shape) for name, shape in shapes.items()}
    found = fitted(Adapter(updates=dict(updates)), base).updates
    assert {name: found[name].transposed for name in found} == {  # type: ignore[attr-defined]
        "attn.weight": True,
        "proj.weight": True,
        "lm_head.weight": False,
    }


@pytest.mark.parametrize("said", [False, True])
def test_a_square_matrix_alone_is_turned_as_the_adapter_says(said: bool) -> None:
    update = lora(32, 32, transposed=said)
    found = fitted(Adapter(updates={"proj.weight": update}), {"proj.weight": stored(32, 32)})
    assert found.updates == {"proj.weight": update}


def write(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def names_of(base: Path, trained: Path) -> dict[str, str]:
    return {name: file.parent.name for name, file in companions(base, trained).items()}


BASE = {
    "config__json": "{}",
    "tokenizer__json": "old",
    "tokenizer__model": "old",
    "chat_template__jinja": "old",
    "modeling_own__py": "",
}


def test_of_an_adapters_folder_comes_how_it_is_asked(tmp_path: Path) -> None:
    base = write(tmp_path / "base", **BASE)
    trained = write(
        tmp_path / "trained",
        adapter_config__json="{}",
        trainer_state__json="{}",
        config__json='{"of": "nothing"}',
        run__py="",
        tokenizer__json="old",
        generation_config__json="{}",
    )
    assert names_of(base, trained) == {
        "config.json": "base",
        "tokenizer.json": "trained",
        "tokenizer.model": "base",
        "chat_template.jinja": "base",
        "modeling_own.py": "base",
        "generation_config.json": "trained",
    }


def test_another_tokenizer_and_template_leave_nothing_of_the_bases(tmp_path: Path) -> None:
    """A `tokenizer.model` without the new tokens would be what llama.cpp reads first."""
    base = write(tmp_path / "base", **BASE)
    config = json.dumps({"chat_template": "new"})
    trained = write(
        tmp_path / "trained",
        adapter_config__json="{}",
        tokenizer__json="new",
        tokenizer_config__json=config,
    )
    assert names_of(base, trained) == {
        "config.json": "base",
        "modeling_own.py": "base",
        "tokenizer.json": "trained",
        "tokenizer_config.json": "trained",
    }


def test_an_adapter_of_another_revision_is_refused() -> None:
    base = ModelParams(source="hub", location="org/base", revision="a" * 40)
    config = {"base_model_name_or_path": "org/base", "revision": "b" * 40}
    with pytest.raises(StageUserError, match=r"trained on org/base at revision bbbb.*the base is at aaaa"):
        _check_revision(config, base)
    for other in ({"revision": "a" * 40}, {"revision": None}, {"base_model_name_or_path": "org/x"}):
        _check_revision(config | other, base)
    _check_revision(config, ModelParams(source="folder", location="/base"))
