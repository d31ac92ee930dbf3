"""What a command is about: a model, an adapter beside its base model, or a run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.contract import Plan, StageKind
from launcher.errors import Problem, UserError
from launcher.spec.base_model import ModelSource
from launcher.spec.files import folder_fault
from launcher.spec.job_grammar import HUB_ID_PATTERN, REVISION_PATTERN
from launcher.stages import adapter_folder, hub_cache
from launcher.stages.model_folder import read_json

_HUB_MODEL = re.compile(rf"(?P<id>{HUB_ID_PATTERN[1:-1]})(?:@(?P<revision>[^@\s]+))?")
#: Types of PEFT adapters whose change is one of the base's weights (`train.merging.adapter`).
MERGEABLE = ("LORA", "IA3")


@dataclass(frozen=True)
class GivenModel:
    """A whole model."""

    name: str
    source: ModelSource


@dataclass(frozen=True)
class GivenAdapter:
    """An adapter, or weights that were trained, and the base model that they belong to."""

    name: str
    source: ModelSource
    base: ModelSource
    peft_type: str = ""  # empty where that is not known


@dataclass(frozen=True)
class GivenRun:
    """A run by its plan, and the kinds of its stages that are complete."""

    plan: Plan
    complete: Collection[StageKind]

    @property
    def name(self) -> str:
        return self.plan.name


Given = GivenModel | GivenAdapter | GivenRun


def recognise(
    text: str,
    base: str | None,
    find_run: Callable[[str], GivenRun],
    environment: Mapping[str, str] = os.environ,
    *,
    option: str = "--base",
) -> Given:
    """What MODEL|ADAPTER|RUN means: a folder, a hub's model as `org/name@commit`, or else a run. `base` names
    an adapter's base model where its own configuration is not to be believed; the command's `option` for it.

    Raises UserError, also what `find_run` raises.
    """
    path = Path(text).expanduser()
    if path.is_file():
        raise _refused(text, *_why_no_folder(path))
    if path.is_dir() and _holds_model(path):
        folder = path.resolve()
        return _made_of(folder.name, ModelSource(folder=str(folder)), folder, base, environment, option)
    if not path.exists() and (_looks_like_path(text) or "/" in text):
        source = None if _looks_like_path(text) else _of_hub(text, environment)
        if source is None:
            why = "is neither a folder nor a model in the hub's cache"
            raise _refused(text, why, "name a folder, org/name@<full commit>, or a run (`slipway runs`)")
        name, cache = (source.hub or "").rpartition("/")[2], hub_cache.cache_folder(environment)
        snapshot = hub_cache.snapshot(source.hub or "", source.revision or "", cache)
        return _made_of(name, source, snapshot, base, environment, option)
    try:
        run = find_run(text)
    except UserError as error:
        if path.is_dir():
            why = f"the folder has neither config.json nor {adapter_folder.CONFIG}, and no run is called so"
            way_out = "name the folder of a transformers model or of a PEFT adapter"
            raise _refused(text, why, way_out) from None
        raise error
    if base is not None:
        raise _refused(f"{option} {base}", "a run knows its base model", "leave it out")
    return run


def _made_of(
    name: str,
    source: ModelSource,
    folder: Path | None,
    base: str | None,
    environment: Mapping[str, str],
    option: str,
) -> GivenModel | GivenAdapter:
    """What `source` holds, by its files in `folder`; None where they are not on this machine: then it is an
    adapter where a base is named for it."""
    is_adapter = folder is not None and adapter_folder.is_adapter(folder)
    config = (read_json(folder / adapter_folder.CONFIG) or {}) if folder is not None and is_adapter else {}
    if base is not None:
        found = named_base(base, environment, option)
    elif is_adapter:
        found = _own_base(f"adapter {folder}", config, environment, option)
    else:
        return GivenModel(name, source)
    return GivenAdapter(name, source, found, str(config.get("peft_type") or ""))


def named_base(text: str, environment: Mapping[str, str] = os.environ, option: str = "--base") -> ModelSource:
    """What the `option` names: a folder, or `org/name@commit`. Raises UserError."""
    path = Path(text).expanduser()
    if path.is_dir():
        return ModelSource(folder=str(path.resolve()))
    if source := None if _looks_like_path(text) else _of_hub(text, environment):
        return source
    fault = folder_fault(path)
    why = fault.why if fault and _looks_like_path(text) else "is no folder, nor in the hub's cache"
    raise _refused(f"{option} {text}", why, "name a folder, or org/name@<full commit>")


def _own_base(
    what: str, config: Mapping[str, Any], environment: Mapping[str, str], option: str
) -> ModelSource:
    """The base that the adapter's configuration names."""
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    way_out = f"name it with {option} FOLDER or {option} org/name@<full commit>"
    if not named or not isinstance(named, str):
        raise _refused(what, f"its {adapter_folder.CONFIG} names no base model", way_out)
    if Path(named).expanduser().is_dir():
        return ModelSource(folder=str(Path(named).expanduser().resolve()))
    text = f"{named}@{revision}" if isinstance(revision, str) and revision else named
    if not _looks_like_path(named) and (source := _of_hub(text, environment)):
        return source
    nowhere = "is no folder here" if _looks_like_path(named) else "is no folder here, nor in the hub's cache"
    raise _refused(what, f"its base model {named} {nowhere}", way_out)


def _of_hub(text: str, environment: Mapping[str, str]) -> ModelSource | None:
    """A hub's model: at a full commit, or at what a branch is in the hub's cache on this machine."""
    match = _HUB_MODEL.fullmatch(text)
    if match is None:
        return None
    revision: str | None = match["revision"] or "main"
    if not re.fullmatch(REVISION_PATTERN, revision or ""):
        revision = hub_cache.commit(match["id"], revision or "", hub_cache.cache_folder(environment))
    return ModelSource(hub=match["id"], revision=revision) if revision else None


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or adapter_folder.is_adapter(folder)


def _looks_like_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def _why_no_folder(path: Path) -> tuple[str, str]:
    if path.suffix == ".gguf":
        return (
            "is a GGUF file, of which nothing else is made",
            "name the model folder that it was made of; `slipway chat` and `slipway serve` take the file",
        )
    return "is a file, where the folder of a model or an adapter is needed", f"name {path.parent}"


def _refused(what: str, why: str, way_out: str) -> UserError:
    return UserError(Problem(where="", what=what, why=why, way_out=way_out))
