"""What RUN|FOLDER|FILE.gguf means to those who talk to a model: the source that an engine answers from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from artifacts.contract import TOKENIZER_FOLDER, ModelParams, Plan, Source, StageKind
from artifacts.download import InputError
from artifacts.manifest import files_folder, is_complete, read_marker
from artifacts.store import Store
from launcher import record
from launcher.errors import ClusterError, Problem, UserError
from launcher.spec.words import listed
from launcher.stages import hub_cache
from launcher.stages.model_folder import read_json

#: Forms of a run's model. `gguf:q8_0` names one of several GGUF files; `gguf` alone means the smallest.
Form = Literal["merged", "adapter", "quantized", "gguf", "base"]
#: The stages that make each, best first for those who want to talk to it.
_MAKERS: dict[Form, tuple[StageKind, ...]] = {
    "merged": (StageKind.MERGE,),
    "adapter": (StageKind.TRAIN, StageKind.ADAPTER),
    "quantized": (StageKind.QUANTIZE,),
    "gguf": (StageKind.GGUF,),
    "base": (StageKind.MODEL,),
}
FORMS = tuple(_MAKERS)

#: Told while an artifact comes from a remote store: what it is, bytes done and in all.
Fetching = Callable[[str, int, int], None]

_ADAPTER_CONFIG = "adapter_config.json"


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """A run's artifacts, as folders of this machine."""

    store: Store
    plan: Plan
    fetching: Fetching

    def complete(self, *kinds: StageKind) -> str | None:
        """The prefix of the first of these that the run has made."""
        made = (self.plan.stage(kind).output for kind in kinds if self.plan.has(kind))
        return next((prefix for prefix in made if is_complete(self.store, prefix)), None)

    def folder(self, prefix: str, wanted: Callable[[str], bool] = lambda path: True) -> Path:
        """Where the artifact's files lie, or those of the `wanted` paths; fetched where they lie elsewhere.
        Raises ClusterError."""
        manifest = read_marker(self.store, prefix)
        assert manifest is not None, f"{prefix} is not complete"
        part = dataclasses.replace(manifest, files=[file for file in manifest.files if wanted(file.path)])
        try:
            return files_folder(
                self.store, prefix, part, progress=lambda done, total: self.fetching(prefix, done, total)
            )
        except InputError as error:
            raise ClusterError(prefix, error.cause, error.advice) from error

    def tokenizer(self) -> Path | None:
        """What training wrote its prompts with."""
        prefix = self.complete(StageKind.PREPARE)
        inside = f"{TOKENIZER_FOLDER}/"
        return None if prefix is None else self.folder(prefix, lambda path: path.startswith(inside)) / inside


def find(
    text: str,
    store: Callable[[], Store],
    *,
    product: str | None = None,
    fetching: Fetching = lambda what, done, total: None,
) -> Source:
    """What to talk to. `product` is one of FORMS; None: the best that is there: the merged model, else base
    and adapter, else what the run makes.

    `store` is opened where `text` means a run, whose artifacts are fetched into the node cache where the
    store is remote. Raises UserError, ClusterError.
    """
    check_product(product)
    path = Path(text).expanduser()
    if path.suffix == ".gguf" or path.is_file():
        return _of_file(path, product)
    if path.is_dir() and _holds_model(path):
        return of_folder(path, product)
    if _looks_like_path(text) and not path.is_dir():
        raise _refused(text, "there is no such folder", "name a model folder, a GGUF file, or a run")
    try:
        opened = store()
        run_id = record.find(opened, text)
    except UserError as error:
        if path.is_dir():
            why = f"the folder holds no model (config.json), adapter ({_ADAPTER_CONFIG}) or GGUF file"
            raise _refused(text, why, "name another one, or a run (`slipway runs`)") from None
        raise error
    return of_run(run_id, Artifacts(opened, record.load_plan(opened, run_id), fetching), product)


def check_product(product: str | None) -> None:
    """Raises UserError for what is none of FORMS."""
    if product is not None and product.partition(":")[0] not in FORMS:
        raise _refused(f"--product {product}", f"is none of {', '.join(FORMS)}", "leave it out for the best")


def of_run(run_id: str, artifacts: Artifacts, product: str | None) -> Source:
    """Raises UserError for a product that the run has not made, or not yet."""
    kind, _, gguf_type = (product or _best(run_id, artifacts)).partition(":")
    prefix = artifacts.complete(*_MAKERS[kind])  # type: ignore[index]
    if prefix is None:
        raise _not_made(run_id, artifacts, kind)  # type: ignore[arg-type]
    base: ModelParams | None = (
        artifacts.plan.stage(StageKind.MODEL).params if artifacts.plan.has(StageKind.MODEL) else None
    )
    source = Source(name=run_id, trust_remote_code=base is not None and base.trust_remote_code)
    if kind == "gguf":
        folder = artifacts.folder(prefix, lambda path: path.endswith(".gguf") and gguf_type in path)
        file = _chosen_gguf(folder, gguf_type, f"run {run_id}")
        return dataclasses.replace(source, gguf=file, tokenizer=artifacts.tokenizer())
    folder = artifacts.folder(prefix)
    if (folder / _ADAPTER_CONFIG).is_file():
        below = artifacts.complete(StageKind.MODEL)
        if below is None:
            raise _not_made(run_id, artifacts, "base")
        tokenizer = artifacts.tokenizer() or own_tokenizer(folder)
        return dataclasses.replace(
            source, folder=artifacts.folder(below), adapter=folder, tokenizer=tokenizer
        )
    # A base is asked with the tokens of the model that was made of it, so that both can be compared.
    return dataclasses.replace(
        source, folder=folder, tokenizer=artifacts.tokenizer() if kind == "base" else None
    )


def _best(run_id: str, artifacts: Artifacts) -> Form:
    for product, kinds in _MAKERS.items():
        if artifacts.complete(*kinds) is not None:
            return product
    raise _refused(
        f"run {run_id}", "it has made no model yet", f"`slipway status {run_id}` says how far it is"
    )


def _not_made(run_id: str, artifacts: Artifacts, product: Form) -> UserError:
    there = [name for name, kinds in _MAKERS.items() if artifacts.complete(*kinds) is not None]
    planned = any(artifacts.plan.has(kind) for kind in _MAKERS[product])
    why = f"the run has not made its {product} model yet" if planned else f"the run makes no {product} model"
    return _refused(
        f"run {run_id}", why, f"it has: {listed([*there])}" if there else "it has made none so far"
    )


def of_folder(folder: Path, product: str | None, environment: Mapping[str, str] = os.environ) -> Source:
    """Of a model's folder, an adapter's, or one with GGUF files. Raises UserError."""
    folder = folder.resolve()
    source = Source(name=folder.name)
    kind, _, gguf_type = (product or "").partition(":")
    if (folder / _ADAPTER_CONFIG).is_file():
        tokenizer = own_tokenizer(folder)
        base = dataclasses.replace(source, folder=_base_of(folder, environment), tokenizer=tokenizer)
        if kind in ("", "adapter"):
            return dataclasses.replace(base, adapter=folder)
        if kind == "base":
            return base
        raise _refused(str(folder), f"is an adapter: it holds no {kind} model", "leave --product out")
    if (folder / "config.json").is_file() and kind != "gguf":
        if kind in ("adapter", "base"):
            raise _refused(str(folder), f"is a whole model: it has no {kind}", "leave --product out")
        return dataclasses.replace(source, folder=folder)
    if kind not in ("", "gguf"):
        raise _refused(str(folder), f"holds GGUF files and no {kind} model", "leave --product out")
    return dataclasses.replace(source, gguf=_chosen_gguf(folder, gguf_type, str(folder)))


def own_tokenizer(folder: Path) -> Path | None:
    """The folder itself where it holds a tokenizer."""
    files = ("tokenizer.json", "tokenizer_config.json")
    return folder if any((folder / name).is_file() for name in files) else None


def _of_file(path: Path, product: str | None) -> Source:
    if not path.is_file():
        raise _refused(str(path), "there is no such file", "name a GGUF file, a model folder, or a run")
    if path.suffix != ".gguf":
        raise _refused(str(path), "is no GGUF file", f"name the folder of the model, as {path.parent}")
    if product not in (None, "gguf"):
        raise _refused(str(path), f"a GGUF file holds no {product} model", "leave --product out")
    return Source(name=path.stem, gguf=path.resolve())


def _chosen_gguf(folder: Path, gguf_type: str, what: str) -> Path:
    """The smallest file, or that of the type. Raises UserError."""
    files = sorted(folder.glob("*.gguf"), key=lambda file: (file.stat().st_size, file.name))
    chosen = [file for file in files if file.stem.lower().endswith(gguf_type.lower())]
    if not chosen:
        there = listed([file.name for file in files])
        raise _refused(what, f"holds no GGUF file of type {gguf_type}", f"it has {there}" if files else "")
    return chosen[0]


def _base_of(adapter: Path, environment: Mapping[str, str]) -> Path:
    """The folder of the base model that the adapter's configuration names. Raises UserError."""
    config = read_json(adapter / _ADAPTER_CONFIG) or {}
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    what = f"adapter {adapter}"
    if not named or not isinstance(named, str):
        raise _refused(
            what, f"its {_ADAPTER_CONFIG} names no base model", "write base_model_name_or_path there"
        )
    folder = Path(named).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve()
    cache = hub_cache.cache_folder(environment)
    commit = revision or hub_cache.commit(named, "main", cache)
    snapshot = hub_cache.snapshot(named, commit, cache) if commit else None
    if snapshot is None or not (snapshot / "config.json").is_file():
        version = f" at {revision}" if revision else ""
        fetch = f"hf download {named}" + (f" --revision {revision}" if revision else "")
        way_out = f"`{fetch}` puts it there, or write its folder into {_ADAPTER_CONFIG}"
        raise _refused(
            what, f"its base model {named}{version} is neither a folder nor in the hub's cache", way_out
        )
    return snapshot


def _holds_model(folder: Path) -> bool:
    files = ("config.json", _ADAPTER_CONFIG)
    return any((folder / name).is_file() for name in files) or any(folder.glob("*.gguf"))


def _looks_like_path(text: str) -> bool:
    return os.sep in text or text.startswith((".", "~"))


def _refused(what: str, why: str, way_out: str) -> UserError:
    return UserError(Problem(where="", what=what, why=why, way_out=way_out))
