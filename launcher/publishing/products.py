"""The files that are published: which of each product, where they go, each checked against its manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from artifacts.contract import Product, StagePlan
from artifacts.download import DamagedError
from artifacts.manifest import FileEntry, Manifest, files_folder, hash_file, read_marker
from artifacts.store import ObjectMissingError, Store
from launcher.publishing.privacy import public_config

#: Where each product goes beside others. A product that is alone lies at the root, where loaders look first.
FOLDERS: dict[Product, str] = {"model": "", "adapter": "adapter/", "quantized": "gptq/", "gguf": "gguf/"}
#: What others load: weights, configuration, tokenizer, template, code. No pickles, no records, no logs.
_SUFFIXES = {
    ".cpp",
    ".cu",
    ".gguf",
    ".jinja",
    ".json",
    ".model",
    ".py",
    ".safetensors",
    ".tiktoken",
    ".txt",
}
_NAMES = {"Modelfile", "LICENSE", "NOTICE"}
#: What training and evaluation leave beside a model, and the card tells better.
_LEFT_OUT_FOLDERS = {"tensorboard"}


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """`path` is relative to the repository or prefix. The bytes are in the file `source`, else `content`."""

    path: str
    size_bytes: int
    sha256: str
    source: Path | None = None
    content: bytes = b""

    @classmethod
    def of_bytes(cls, path: str, content: bytes) -> PublishedFile:
        digest = hashlib.sha256(content).hexdigest()
        return cls(path=path, size_bytes=len(content), sha256=digest, content=content)


def folders(products: Iterable[Product]) -> dict[Product, str]:
    """Where each of the products goes: `""`, or a folder with its slash."""
    listed = list(products)
    return {listed[0]: ""} if len(listed) == 1 else {name: FOLDERS[name] for name in listed}


def main_product(products: Iterable[Product]) -> Product:
    """The one that a publication is about."""
    listed = list(products)
    return next(name for name in FOLDERS if name in listed)


def is_published(path: str) -> bool:
    """Whether a file of a product is for others."""
    name = PurePosixPath(path)
    if any(part.startswith(".") for part in name.parts) or name.parts[0] in _LEFT_OUT_FOLDERS:
        return False
    return name.suffix in _SUFFIXES or name.name in _NAMES


def manifests(stage: StagePlan, products: Sequence[Product], store: Store) -> dict[Product, Manifest]:
    """What of each product is published. Raises ObjectMissingError where one is not there."""
    found = {}
    for name in products:
        manifest = read_marker(store, stage.inputs[name])
        if manifest is None:
            raise ObjectMissingError(stage.inputs[name])
        files = [entry for entry in manifest.files if is_published(entry.path)]
        found[name] = dataclasses.replace(manifest, files=files)
    return found


def collect(
    stage: StagePlan,
    wanted: Mapping[Product, Manifest],
    store: Store,
    *,
    base_name: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PublishedFile]:
    """Every file, on this machine (fetched where the store is remote) and checked to the byte.

    `base_name`: how an adapter names its base model, None where it has no public name. `progress` is told
    bytes checked and bytes in all. Raises DamagedError, and what `artifacts.manifest.files_folder` raises.
    """
    total_bytes = sum(manifest.size_bytes for manifest in wanted.values())
    done_bytes, files = 0, []
    where = folders(wanted)
    for name, manifest in wanted.items():
        prefix = stage.inputs[name]
        folder = files_folder(store, prefix, manifest, once=True)
        for entry in manifest.files:
            files.append(_checked(folder, prefix, entry, where[name], base_name))
            done_bytes += entry.size_bytes
            progress(done_bytes, total_bytes)
    return files


def _checked(folder: Path, prefix: str, entry: FileEntry, where: str, base_name: str | None) -> PublishedFile:
    path = folder / entry.path
    try:
        there = hash_file(path)
    except FileNotFoundError:
        raise _damaged(prefix, entry, "it is missing") from None
    if there != (entry.size_bytes, entry.sha256):
        raise _damaged(prefix, entry, "it is not what its manifest says")
    if path.suffix == ".json":
        content = path.read_bytes()
        public = public_config(content, base_name=base_name)
        if public != content:
            return PublishedFile.of_bytes(where + entry.path, public)
    return PublishedFile(
        path=where + entry.path, size_bytes=entry.size_bytes, sha256=entry.sha256, source=path
    )


def _damaged(prefix: str, entry: FileEntry, why: str) -> DamagedError:
    advice = f"`slipway verify {prefix} --discard` gives it up, and submitting again makes it anew"
    return DamagedError(f"{prefix}/{entry.path} is damaged: {why}; nothing of it is published", advice)
