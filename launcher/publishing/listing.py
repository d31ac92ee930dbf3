"""What a hub repository holds at one commit, beside what is to be published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from launcher.publishing.products import PublishedFile

#: Files that loaders find by name, and so must not stay of another model in a folder that is written.
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf")
_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Remote:
    """A file as the hub lists it: by SHA-256 where it is large, by git's object id where it is small."""

    sha256: str | None
    git_id: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    revision: str
    files: Mapping[str, Remote]


def is_there(file: PublishedFile, files: Mapping[str, Remote]) -> bool:
    """Whether the repository holds these very bytes at that path."""
    remote = files.get(file.path)
    if remote is None:
        return False
    if remote.sha256 is not None:
        return remote.sha256 == file.sha256
    return remote.git_id == _git_id(file)


def stale_weights(there: Mapping[str, Remote], paths: Sequence[str]) -> list[str]:
    """Weights, and what makes an adapter of a folder, that are not of this publication but lie in folders
    that it puts weights into: loaders would take them for a part of it."""
    written = {PurePosixPath(path).parent for path in paths if path.endswith(_WEIGHTS)}
    kept = set(paths)
    return sorted(
        path
        for path in there
        if path not in kept
        and PurePosixPath(path).parent in written
        and (path.endswith(_WEIGHTS) or PurePosixPath(path).name == _ADAPTER_CONFIG)
    )


def _git_id(file: PublishedFile) -> str:
    """git's object id: SHA-1 over `blob <size>\\0` and the bytes. Only for files that the hub keeps in git,
    which are small."""
    digest = hashlib.sha1(b"blob %d\0" % file.size_bytes)
    digest.update(file.source.read_bytes() if file.source else file.content)
    return digest.hexdigest()
