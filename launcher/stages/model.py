"""Stage `model`: where the base model comes from, how large it is, and models that are used in place.

A local folder, the hub's cache and a store's artifact are used where they lie: the artifact is a marker that
lists their files. Only what is not on this machine, or has to be made, runs as a stage process.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from artifacts.contract import ModelParams, StageKind, StagePlan, TwinParams
from artifacts.manifest import Manifest, manifest_at, read_marker, write_marker
from artifacts.store import Store, file_uri_path, open_store
from launcher import dimensions
from launcher.digests import Digests
from launcher.dimensions import Dimensions
from launcher.errors import Problem, UserError
from launcher.spec.base_model import Twin
from launcher.spec.files import Fault, folder_fault
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages import data as data_stage
from launcher.stages import hub_cache, model_folder
from launcher.stages.done import is_remote
from launcher.stages.keys import CodeDigest, stage, stage_key

#: The longest sequence of a twin, unless the job asks for longer ones.
TWIN_POSITIONS = 2048
#: Dimensions of a rehearsal's twin, which keeps the original's architecture, tokenizer and vocabulary.
REHEARSAL_TWIN = TwinParams(
    hidden_size=64, intermediate_size=128, layers=2, attention_heads=4, key_value_heads=2
)


@dataclass
class Source:
    """The base model as the plan sees it. `dimensions` and `quantized_by` (`quant_method` of its config) are
    None where its config is not on this machine; `size_bytes` is that of its files which are."""

    params: ModelParams | None = None
    dimensions: Dimensions | None = None
    quantized_by: str | None = None
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


def find(
    job: Loaded[Job],
    digests: Digests,
    *,
    rehearse: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Source:
    """Resolve the job's model without the network; to `rehearse`, a twin of it (no weights are read)."""
    model = job.value.model
    if model.twin is not None:
        return _twin(model.twin, job.value.training.max_length)
    if field_name := model.unpinned():
        return _unpinned(job, field_name)
    if model.folder is not None:
        found = _folder(job, Path(model.folder), digests, weights=not rehearse)
    elif model.hub is not None:
        found = _hub(job, environment)
    else:
        found = _store(job)
    if rehearse and found.params is not None:
        found.params = _twin_of(found.params, job.value.training.max_length)
        found.dimensions = found.dimensions and _sized(found.dimensions, REHEARSAL_TWIN)
    return found


def plan(params: ModelParams, data: StagePlan, code: CodeDigest) -> StagePlan:
    """The stage. A twin with a tokenizer of its own is made from the training records; code has a say only
    in what is made, not in what is taken as it is."""
    trains_tokenizer = params.source == "twin" and params.location is None
    digests = {"data": data_stage.content(data.params, code, ["train"])} if trains_tokenizer else {}
    made = params.source == "twin"
    key = stage_key(StageKind.MODEL, code(StageKind.MODEL) if made else "", digests, _key_params(params))
    return stage(StageKind.MODEL, key, {"data": data} if trains_tokenizer else {}, params)


def commit_in_place(
    stage: StagePlan, store: Store, digests: Digests, environment: Mapping[str, str] = os.environ
) -> Manifest | None:
    """Write the marker of a model that is used where it lies; None where a stage process has to fetch or make
    it, or where it lies on this machine and the store is read by others (`launcher.stages.model_upload`).

    Cheap to repeat: an unchanged folder is not read again, and a marker that points to where the model no
    longer lies is replaced. Raises UserError where a folder is not what the plan saw.
    """
    params: ModelParams = stage.params
    if is_remote(store) and on_this_machine(params):
        return None
    if params.source == "store":
        manifest = manifest_at(params.location or "")
        if manifest is None or manifest.content_digest != params.sha256:
            raise changed(params, "the artifact is missing or not the pinned one", "slipway pin JOB")
        if is_remote(store) and file_uri_path(manifest.location or "") is not None:
            raise changed(params, f"its files lie on another machine ({manifest.location})", "choose another")
    else:
        folder = None if is_remote(store) else _folder_in_place(params, environment)
        if folder is None:
            return None
        if faults := model_folder.faults(folder):
            if params.source == "hub":  # a download that was not finished
                return None
            raise changed(params, f"the folder {faults[0].why}", faults[0].way_out)
        files = model_folder.entries(folder, digests)
        if params.source == "folder" and Manifest(files=files).content_digest != params.sha256:
            raise changed(params, "the folder changed since the plan was made", "submit again")
        manifest = Manifest(files=files, location=folder.as_uri())
    if read_marker(store, stage.output) != manifest:
        write_marker(store, stage.output, manifest)
    return manifest


def on_this_machine(params: ModelParams) -> bool:
    """Whether the model (a rehearsal's original) lies in a folder or store of this machine alone."""
    source = params.twin_of or params.source
    return source == "folder" or (source == "store" and file_uri_path(params.location or "") is not None)


def _folder_in_place(params: ModelParams, environment: Mapping[str, str]) -> Path | None:
    if params.source == "folder" and params.location:
        return Path(params.location)
    if params.source == "hub" and params.location and params.revision and params.hub == "huggingface":
        return hub_cache.snapshot(params.location, params.revision, hub_cache.cache_folder(environment))
    return None


def _twin(twin: Twin, max_length: int) -> Source:
    params = TwinParams(
        architecture=twin.architecture,
        hidden_size=twin.hidden_size,
        intermediate_size=twin.intermediate_size,
        layers=twin.layers,
        attention_heads=twin.attention_heads,
        key_value_heads=twin.key_value_heads,
        vocabulary_size=twin.vocabulary_size,
        max_positions=max(TWIN_POSITIONS, max_length),
        tie_embeddings=twin.tie_embeddings,
        seed=twin.seed,
    )
    size = _sized(
        Dimensions(
            architecture=twin.architecture,
            layers=twin.layers,
            hidden_size=twin.hidden_size,
            intermediate_size=twin.intermediate_size,
            attention_heads=twin.attention_heads,
            key_value_heads=twin.key_value_heads,
            head_size=twin.hidden_size // twin.attention_heads,
            vocabulary_size=twin.vocabulary_size,
            max_positions=params.max_positions,
            tie_embeddings=twin.tie_embeddings,
        ),
        params,
    )
    return Source(ModelParams(source="twin", twin=params), size)


def _twin_of(original: ModelParams, max_length: int) -> ModelParams:
    assert original.source != "twin"
    return dataclasses.replace(
        original,
        source="twin",
        twin_of=original.source,
        twin=dataclasses.replace(REHEARSAL_TWIN, max_positions=max(TWIN_POSITIONS, max_length)),
    )


def _sized(size: Dimensions, twin: TwinParams) -> Dimensions:
    """`size` with the twin's dimensions, as far as its architecture has them: Bloom's MLP and key heads
    follow from its width and heads, its positions have no bound."""
    is_bloom = size.architecture == "bloom"
    return dataclasses.replace(
        size,
        layers=twin.layers,
        hidden_size=twin.hidden_size,
        intermediate_size=4 * twin.hidden_size if is_bloom else twin.intermediate_size,
        attention_heads=twin.attention_heads,
        key_value_heads=twin.attention_heads if is_bloom else twin.key_value_heads,
        head_size=twin.hidden_size // twin.attention_heads,
        max_positions=0 if is_bloom else size.max_positions,
    )


def _unpinned(job: Loaded[Job], field_name: str) -> Source:
    source = "hub" if field_name == "revision" else "store"
    problem = Problem(
        where=job.where(f"model.{source}"),
        what=f"model.{source}: {getattr(job.value.model, source)}",
        why=f"it is not pinned: without model.{field_name} the same job could mean another model tomorrow",
        way_out=f"slipway pin {job.path}",
    )
    return Source(problems=[problem])


def _folder(job: Loaded[Job], folder: Path, digests: Digests, *, weights: bool) -> Source:
    fault = folder_fault(folder, inside=job.path.absolute().parent)
    faults = [fault] if fault else model_folder.faults(folder, weights=weights)
    if not faults:
        try:
            files = model_folder.entries(folder, digests, weights=weights)
        except OSError as error:
            faults = [Fault(f"can't be read: {error.strerror or error}")]
    if faults:
        where, what = job.where("model.folder"), f"model.folder: {data_stage.shown(folder)}"
        found = [Problem(where=where, what=what, why=fault.why, way_out=fault.way_out) for fault in faults]
        return Source(problems=found)
    params = ModelParams(
        source="folder",
        location=str(folder),
        sha256=Manifest(files=files).content_digest,
        trust_remote_code=job.value.model.trust_remote_code,
    )
    return _source(params, folder, sum(entry.size_bytes for entry in files))


def _hub(job: Loaded[Job], environment: Mapping[str, str]) -> Source:
    model = job.value.model
    params = ModelParams(
        source="hub",
        location=model.hub,
        revision=model.revision,
        hub=model.provider,
        trust_remote_code=model.trust_remote_code,
    )
    folder = _folder_in_place(params, environment)
    return _source(params, folder) if folder else Source(params)


def _store(job: Loaded[Job]) -> Source:
    model = job.value.model
    location = model.store or ""
    if "://" not in location:
        location = Path(location).as_uri()
    params = ModelParams(
        source="store", location=location, sha256=model.sha256, trust_remote_code=model.trust_remote_code
    )
    if not location.startswith(
        "file://"
    ):  # a plan asks nobody; whoever uses the model holds it to its digest
        return Source(params)
    where, what = job.where("model.store"), f"model.store: {model.store}"
    params = ModelParams(
        source="store", location=location, sha256=model.sha256, trust_remote_code=model.trust_remote_code
    )
    try:
        if is_remote(open_store(location)):
            return Source(params)  # pinned, and looked at when the stage runs: a plan needs no network
        manifest = manifest_at(location)
    except ValueError as error:
        return Source(problems=[Problem(where=where, what=what, why=str(error))])
    if manifest is None:
        why = "there is no complete artifact"
        return Source(problems=[Problem(where=where, what=what, why=why, way_out="slipway runs")])
    digest = manifest.content_digest
    if digest != model.sha256:
        why = f"its digest is {digest[:12]}…, model.sha256 says {(model.sha256 or '')[:12]}…"
        way_out = f"slipway pin {job.path}, if the artifact there is the one you mean"
        return Source(problems=[Problem(where=where, what=what, why=why, way_out=way_out)])
    folder = file_uri_path(manifest.location or "")
    size_bytes = sum(entry.size_bytes for entry in manifest.files)
    return _source(params, folder, size_bytes) if folder else Source(params, size_bytes=size_bytes)


def _source(params: ModelParams, folder: Path, size_bytes: int = 0) -> Source:
    """What the config.json of `folder` says of the model."""
    config = model_folder.read_json(folder / "config.json") or {}
    quantized = config.get("quantization_config")
    return Source(
        params,
        dimensions.from_config(config),
        str(quantized.get("quant_method", "?")) if isinstance(quantized, dict) else None,
        size_bytes,
    )


def _key_params(params: ModelParams) -> dict[str, object]:
    """What decides the content: its digest, or the pinned revision, or how it is made; not its place."""
    values = dataclasses.asdict(params)
    if params.sha256 is not None:
        del values["location"], values["hub"]
    return values


def changed(params: ModelParams, why: str, way_out: str) -> UserError:
    return UserError(Problem(where="", what=f"model {params.location}", why=why, way_out=way_out))
