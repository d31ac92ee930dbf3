"""What MODEL|ADAPTER|RUN means, and what is said of what means nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.alone.given import GivenAdapter, GivenModel
from launcher.errors import UserError
from tests.launcher.alone.folders import a_run, given, write_adapter
from tests.launcher.plans import write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    """A hub's cache that has `org/base` at its main branch."""
    repository = tmp_path / "hub/models--org--base"
    write_model(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return {"HF_HUB_CACHE": str(tmp_path / "hub")}


def test_a_model_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "My Model")
    model = given(folder)
    assert isinstance(model, GivenModel)
    assert (model.name, model.source.folder) == ("My Model", str(folder))


def test_a_link_to_a_folder_is_the_folder(tmp_path: Path) -> None:
    """So that it is no symlink that leads out of somewhere."""
    folder = write_model(tmp_path / "far/model")
    (tmp_path / "link").symlink_to(folder)
    assert given(tmp_path / "link").source.folder == str(folder)  # type: ignore[union-attr]


def test_an_adapter_with_the_base_that_it_names(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    adapter = given(write_adapter(tmp_path / "adapter", str(base)))
    assert isinstance(adapter, GivenAdapter)
    assert (adapter.base.folder, adapter.peft_type) == (str(base), "LORA")


def test_another_base_is_believed_more(tmp_path: Path) -> None:
    other = write_model(tmp_path / "other")
    adapter = write_adapter(tmp_path / "adapter", str(write_model(tmp_path / "base")))
    assert given(adapter, str(other)).base.folder == str(other)  # type: ignore[union-attr]


def test_a_base_in_the_hubs_cache(tmp_path: Path, cache: dict[str, str]) -> None:
    adapter = write_adapter(tmp_path / "adapter", "org/base")
    base = given(adapter, **cache).base  # type: ignore[union-attr]
    assert (base.hub, base.revision) == ("org/base", COMMIT)


def test_a_base_at_a_commit_need_not_be_in_the_cache(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", "gone")
    base = given(adapter, f"org/elsewhere@{COMMIT}").base  # type: ignore[union-attr]
    assert (base.hub, base.revision) == ("org/elsewhere", COMMIT)
    pinned = write_adapter(tmp_path / "pinned", "org/elsewhere", revision=COMMIT)
    assert given(pinned).base == base  # type: ignore[union-attr]


def test_a_model_of_the_hub(cache: dict[str, str]) -> None:
    model = given("org/base", **cache)
    assert isinstance(model, GivenModel) and model.name == "base" and model.source.revision == COMMIT


def test_an_adapter_of_the_hub(tmp_path: Path, cache: dict[str, str]) -> None:
    write_adapter(tmp_path / "hub/models--me--tuned/snapshots" / COMMIT, "org/base")
    adapter = given(f"me/tuned@{COMMIT}", **cache)
    assert isinstance(adapter, GivenAdapter)
    assert (adapter.name, adapter.source.hub, adapter.base.hub) == ("tuned", "me/tuned", "org/base")
    unseen = given(f"me/unseen@{COMMIT}", "org/base", **cache)  # nothing of it is here: its base tells
    assert isinstance(unseen, GivenAdapter) and unseen.base == adapter.base


def test_weights_that_were_trained_whole_with_their_base(tmp_path: Path) -> None:
    tuned, base = write_model(tmp_path / "tuned"), write_model(tmp_path / "base")
    assert isinstance(given(tuned, str(base)), GivenAdapter)


def test_anything_else_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.alone.given import recognise

    run = a_run(tmp_path)
    (tmp_path / "bot").mkdir()  # a folder of that name which holds no model is no reason against it
    monkeypatch.chdir(tmp_path)
    assert recognise("bot", None, lambda text: run) is run


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./nothing", "is neither a folder nor"),
        ("org/unknown", "name a folder, org/name@<full commit>"),
        ("empty", "has neither config.json nor adapter_config.json"),
        ("model.gguf", "GGUF file"),
        ("notes.txt", "is a file, where the folder"),
        ("lost", "its base model /nowhere/base is no folder here; name it with --base"),
        ("unknown", "its base model org/unknown is no folder here, nor in the hub's cache"),
        ("nameless", "its adapter_config.json names no base model"),
        ("nobody", "run nobody: not in the store"),
    ],
)
def test_what_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("model.gguf", "notes.txt"):
        (tmp_path / name).write_text("")
    for name, base in (("lost", "/nowhere/base"), ("unknown", "org/unknown"), ("nameless", None)):
        write_adapter(tmp_path / name, base)
    with pytest.raises(UserError, match=re.escape(words)):
        given(text, HF_HUB_CACHE=str(tmp_path / "hub"))


@pytest.mark.parametrize("base", ["./nothing", "org/unknown"])
def test_a_base_that_is_not_there(tmp_path: Path, base: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", "gone")
    with pytest.raises(UserError, match=f"--base {base}: .*; name a folder, or org/name@<full commit>"):
        given(adapter, base, HF_HUB_CACHE=str(tmp_path / "hub"))


def test_a_run_needs_no_base(tmp_path: Path) -> None:
    from launcher.alone.given import recognise

    with pytest.raises(UserError, match="a run knows its base model"):
        recognise("bot", "org/base", lambda text: a_run(tmp_path))
