"""Where a model comes from, found without the network: a folder of this machine, a hub's repository at a
pinned revision, an artifact of a store at its digest. Also an adapter that was trained elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.contract import ModelParams
from artifacts.manifest import Manifest, manifest_at
from artifacts.store import file_uri_path, open_store
from launcher import dimensions
from launcher.digests import Digests
from launcher.dimensions import Dimensions
from launcher.errors import Problem
from launcher.spec.base_model import ModelSource
from launcher.spec.files import Fault, folder_fault
from launcher.stages import model_folder
from launcher.stages.data_look import shown
from launcher.stages.done import is_remote
from launcher.stages.in_place import MODEL_FILES, Contents, folder_of


@dataclass
class Source:
    """A model as the plan sees it. `dimensions` and `quantization` (`quantization_config` of its config) are
    None where its config is not on this machine; `size_bytes` is that of its files which are."""

    params: ModelParams | None = None
    dimensions: Dimensions | None = None
    quantization: dict[str, Any] | None = None
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def quantized_by(self) -> str | None:
        """What it is quantized by, as its config names it; None where it is not, as far as is known."""
        return None if self.quantization is None else str(self.quantization.get("quant_method", "?"))


@dataclass(frozen=True)
class Named:
    """How a job's section, or a command, names the model: for what is told of it.

    `where` gives the place of a field as `model.folder`; `file` is the job's, None for a command.
    """

    field: str
    where: Callable[[str], str] = lambda field: ""
    file: Path | None = None

    def refused(self, source: str, value: object, *faults: Fault) -> Source:
        name = f"{self.field}.{source}"
        return Source(
            problems=[
                Problem(where=self.where(name), what=f"{name}: {value}", why=fault.why, way_out=fault.way_out)
                for fault in faults
            ]
        )

    @property
    def pin(self) -> str:
        return f"slipway pin {self.file}" if self.file else ""


def find(
    section: ModelSource,
    named: Named,
    digests: Digests,
    *,
    weights: bool = True,
    contents: Contents = MODEL_FILES,
    environment: Mapping[str, str] = os.environ,
) -> Source:
    """The pinned model of a `section`; its problems where it can't be used. `contents` tells what makes its
    folder whole; without `weights`, those count for nothing."""
    if missing := section.unpinned():
        source = "hub" if missing == "revision" else "store"
        why = (
            f"it is not pinned: without {named.field}.{missing} the same job could mean another model "
            "tomorrow"
        )
        return named.refused(source, getattr(section, source), Fault(why, named.pin))
    if section.folder is not None:
        return _folder(section, Path(section.folder), named, digests, contents, weights=weights)
    if section.hub is not None:
        return _hub(section, contents, environment)
    return _store(section, named)


def _folder(
    section: ModelSource, folder: Path, named: Named, digests: Digests, contents: Contents, *, weights: bool
) -> Source:
    inside = named.file.absolute().parent if named.file else None
    fault = folder_fault(folder, inside=inside)
    faults = [fault] if fault else contents.faults(folder, weights=weights)
    if not faults:
        try:
            files = contents.entries(folder, digests, weights=weights)
        except OSError as error:
            faults = [Fault(f"can't be read: {error.strerror or error}")]
    if faults:
        return named.refused("folder", shown(folder), *faults)
    params = ModelParams(
        source="folder",
        location=str(folder),
        sha256=Manifest(files=files).content_digest,
        trust_remote_code=section.trust_remote_code,
    )
    return described(params, folder, sum(entry.size_bytes for entry in files))


def _hub(section: ModelSource, contents: Contents, environment: Mapping[str, str]) -> Source:
    params = ModelParams(
        source="hub",
        location=section.hub,
        revision=section.revision,
        hub=section.provider,
        trust_remote_code=section.trust_remote_code,
    )
    folder = folder_of(params, environment)
    return described(params, folder) if folder else Source(params)


def _store(section: ModelSource, named: Named) -> Source:
    location = section.store or ""
    if "://" not in location:
        location = Path(location).as_uri()
    params = ModelParams(
        source="store",
        location=location,
        sha256=section.sha256,
        trust_remote_code=section.trust_remote_code,
    )
    if not location.startswith("file://"):
        return Source(params)  # a plan asks nobody; whoever uses the model holds it to its digest
    try:
        if is_remote(open_store(location)):
            return Source(params)
        manifest = manifest_at(location)
    except ValueError as error:
        return named.refused("store", section.store, Fault(str(error)))
    if manifest is None:
        return named.refused("store", section.store, Fault("there is no complete artifact", "slipway runs"))
    digest = manifest.content_digest
    if digest != section.sha256:
        pinned = (section.sha256 or "")[:12]
        why = f"its digest is {digest[:12]}…, {named.field}.sha256 says {pinned}…"
        way_out = f"{named.pin}, if the artifact there is the one you mean"
        return named.refused("store", section.store, Fault(why, way_out))
    folder = file_uri_path(manifest.location or "")
    size_bytes = manifest.size_bytes
    return described(params, folder, size_bytes) if folder else Source(params, size_bytes=size_bytes)


def described(params: ModelParams, folder: Path, size_bytes: int = 0) -> Source:
    """What the config.json of `folder` says of the model."""
    config = model_folder.read_json(folder / "config.json") or {}
    quantized = config.get("quantization_config")
    return Source(
        params,
        dimensions.from_config(config),
        quantized if isinstance(quantized, dict) else None,
        size_bytes,
    )
