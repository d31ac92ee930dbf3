"""Names of runs and artifacts, and the references that people type (`slipway verify KEY|RUN`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from artifacts.contract import StageKind

#: Hex digits of a key that people see and may type. 16^12 keys make a clash in one store implausible.
SHORT_KEY_DIGITS = 12
#: Fewest hex digits of a key that are taken as one.
MIN_KEY_DIGITS = 4

_RUN_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?-[0-9a-f]{8}")
_KEY = re.compile(rf"[0-9a-f]{{{MIN_KEY_DIGITS},64}}")
#: Of kinds that share a folder, the first.
_KIND_OF_FOLDER = {kind.folder: kind for kind in reversed(StageKind)}


@dataclass(frozen=True)
class RunReference:
    run_id: str


@dataclass(frozen=True)
class ArtifactReference:
    """An artifact by the first digits of its key. `kind` is None where only digits were given."""

    key: str
    kind: StageKind | None = None


Reference = RunReference | ArtifactReference


def artifact_prefix(kind: StageKind, key: str) -> str:
    """Where a stage's artifact lies. Training keeps its checkpoints and metrics beside its `final/` one."""
    return f"{kind.folder}/{key}/final" if kind is StageKind.TRAIN else f"{kind.folder}/{key}"


def short_key(key: str) -> str:
    return key[:SHORT_KEY_DIGITS]


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """What `text` refers to: a run id (`bot-1a2b3c4d`), a key's first digits (`9f86d081`), or an artifact's
    path in the store (`train/9f86d081`, `train/9f86d081/final`). Raises ValueError saying what it may be.
    """
    text = text.strip().removesuffix("/")
    if is_run_id(text.removeprefix("runs/")):
        return RunReference(text.removeprefix("runs/"))
    folder, slash, rest = text.partition("/")
    if not slash and _KEY.fullmatch(text):
        return ArtifactReference(text)
    key = rest.removesuffix("/final") if folder == StageKind.TRAIN.folder else rest
    if slash and folder in _KIND_OF_FOLDER and _KEY.fullmatch(key):
        return ArtifactReference(key, _KIND_OF_FOLDER[folder])
    raise ValueError(
        f"{text!r} is neither a run id (bot-1a2b3c4d) nor a key: {MIN_KEY_DIGITS} or more of its "
        f"hex digits, alone or after its folder ({'/, '.join(_KIND_OF_FOLDER)}/)"
    )


def match_artifacts(reference: ArtifactReference, keys: Mapping[StageKind, Iterable[str]]) -> list[str]:
    """Prefixes of the artifacts among `keys` that `reference` may mean, in a stable order."""
    kinds = [reference.kind] if reference.kind else list(StageKind)
    found = [
        artifact_prefix(kind, key)
        for kind in kinds
        for key in sorted(set(keys.get(kind, ())))
        if key.startswith(reference.key)
    ]
    return list(dict.fromkeys(found))
