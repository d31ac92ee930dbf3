"""What RUN|FOLDER|FILE.gguf means to those who talk to a model: the source that an engine answers from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from artifacts.contract import TOKENIZER_FOLDER, ModelParams, Plan, Source, StageKind
from artifacts.download import InputError
from artifacts.manifest import files_folder, is_complete, read_marker
from artifacts.store import Store
from launcher import record
from launcher.alone.given import GivenAdapter, GivenModel, GivenRun, recognise
from launcher.errors import ClusterError, Problem, UserError
from launcher.spec.base_model import ModelSource
from launcher.stages import adapter_folder, hub_cache, model_folder

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
_WITH_ADAPTER = "base model with adapter"

#: Told while an artifact comes from a remote store: what it is, bytes done and in all.
Fetching = Callable[[str, int, int], None]


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
    base_model: str | None = None,
    fetching: Fetching = lambda what, done, total: None,
) -> Source:
    """What to talk to. `product` is one of FORMS; None: the best that is there: the merged model, else base
    and adapter, else what the run makes. `base_model` is that of an adapter whose configuration names none
    that is here.

    `store` is opened where `text` means a run, whose artifacts are fetched into the node cache where the
    store is remote. Raises UserError, ClusterError.
    """
    check_product(product)
    path = Path(text).expanduser()
    if path.suffix == ".gguf":
        return _of_file(path, product)
    if path.is_dir() and not (path / "config.json").is_file() and any(path.glob("*.gguf")):
        return _of_gguf_folder(path.resolve(), product)
    runs: list[tuple[str, Artifacts]] = []

    def find_run(name: str) -> GivenRun:
        opened = store()
        run_id = record.find(opened, name)
        plan = record.load_plan(opened, run_id)
        runs.append((run_id, Artifacts(opened, plan, fetching)))
        return GivenRun(plan, ())

    given = recognise(text, base_model, find_run, option="--base-model")
    return of_run(*runs[0], product) if isinstance(given, GivenRun) else of_folder(given, product)


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
        return dataclasses.replace(source, gguf=file, tokenizer=artifacts.tokenizer(), form="GGUF file")
    folder = artifacts.folder(prefix)
    if adapter_folder.is_adapter(folder):
        below = artifacts.complete(StageKind.MODEL)
        if below is None:
            raise _not_made(run_id, artifacts, "base")
        tokenizer = artifacts.tokenizer() or own_tokenizer(folder)
        base_folder = artifacts.folder(below)
        return dataclasses.replace(
            source, folder=base_folder, adapter=folder, tokenizer=tokenizer, form=_WITH_ADAPTER
        )
    # A base is asked with the tokens of the model that was made of it, so that both can be compared.
    tokenizer = artifacts.tokenizer() if kind == "base" else None
    form = "tuned model" if kind == "adapter" else f"{kind} model"
    return dataclasses.replace(source, folder=folder, tokenizer=tokenizer, form=form)


def _best(run_id: str, artifacts: Artifacts) -> Form:
    """The untuned model only of a run that tunes none."""
    tunes = any(artifacts.plan.has(kind) for kind in _MAKERS["adapter"])
    for product, kinds in _MAKERS.items():
        if (product != "base" or not tunes) and artifacts.complete(*kinds) is not None:
            return product
    way_out = f"`slipway status {run_id}` says how far it is"
    raise _refused(f"run {run_id}", "it has made no model yet", way_out)


def _not_made(run_id: str, artifacts: Artifacts, product: Form) -> UserError:
    there = [name for name, kinds in _MAKERS.items() if artifacts.complete(*kinds) is not None]
    planned = any(artifacts.plan.has(kind) for kind in _MAKERS[product])
    why = f"the run has not made its {product} model yet" if planned else f"the run makes no {product} model"
    return _refused(f"run {run_id}", why, f"it has made: {', '.join(there) or 'none so far'}")


def of_folder(given: GivenModel | GivenAdapter, product: str | None) -> Source:
    """Of a model's folder or an adapter's. Raises UserError."""
    folder = _checked(given.source, given.name)
    source = Source(name=given.name)
    if isinstance(given, GivenModel) or not adapter_folder.is_adapter(folder):
        if product is not None:
            what = (
                "does not say which model it was made of" if product == "base" else f"has no {product} form"
            )
            raise _refused(given.name, f"is a whole model, and {what}", "name a run, or an adapter")
        return dataclasses.replace(source, folder=folder)
    below = _checked(given.base, f"base model of {given.name}")
    base = dataclasses.replace(source, folder=below, tokenizer=own_tokenizer(folder))
    if product in (None, "adapter"):
        return dataclasses.replace(base, adapter=folder, form=_WITH_ADAPTER)
    if product == "base":
        return dataclasses.replace(base, form="base model")
    raise _refused(given.name, f"is an adapter: it holds no {product} model", "leave --product out")


def _checked(source: ModelSource, what: str) -> Path:
    """The folder of a model or an adapter, with all its files. Raises UserError."""
    if source.folder is not None:
        folder = Path(source.folder)
    else:
        assert source.hub is not None and source.revision is not None, "recognised as a hub's model"
        found = hub_cache.snapshot(source.hub, source.revision, hub_cache.cache_folder())
        if found is None:
            fetch = f"hf download {source.hub} --revision {source.revision}"
            why = f"{source.hub} at {source.revision} is not in the hub's cache"
            raise _refused(what, why, f"`{fetch}` puts it there")
        folder = found
    is_adapter = adapter_folder.is_adapter(folder)
    if faults := (adapter_folder.faults if is_adapter else model_folder.faults)(folder):
        raise _refused(str(folder), faults[0].why, faults[0].way_out)
    return folder


def own_tokenizer(folder: Path) -> Path | None:
    """The folder itself where it holds a tokenizer."""
    files = ("tokenizer.json", "tokenizer_config.json")
    return folder if any((folder / name).is_file() for name in files) else None


def _of_file(path: Path, product: str | None) -> Source:
    if not path.is_file():
        raise _refused(str(path), "there is no such file", "name a GGUF file, a model folder, or a run")
    if product not in (None, "gguf"):
        raise _refused(str(path), f"a GGUF file holds no {product} model", "leave --product out")
    return Source(name=path.stem, gguf=path.resolve(), form="GGUF file")


def _of_gguf_folder(folder: Path, product: str | None) -> Source:
    kind, _, gguf_type = (product or "gguf").partition(":")
    if kind != "gguf":
        raise _refused(str(folder), f"holds GGUF files and no {kind} model", "leave --product out")
    return Source(name=folder.name, gguf=_chosen_gguf(folder, gguf_type, str(folder)), form="GGUF file")


def _chosen_gguf(folder: Path, gguf_type: str, what: str) -> Path:
    """The smallest file, or that of the type. Raises UserError."""
    files = sorted(folder.glob("*.gguf"), key=lambda file: (file.stat().st_size, file.name))
    chosen = [file for file in files if file.stem.lower().endswith(gguf_type.lower())]
    if not chosen:
        there = ", ".join(file.name for file in files) or "none"
        raise _refused(what, f"holds no GGUF file of type {gguf_type}", f"it has {there}")
    return chosen[0]


def _refused(what: str, why: str, way_out: str) -> UserError:
    return UserError(Problem(where="", what=what, why=why, way_out=way_out))
