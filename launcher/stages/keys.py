"""A stage's key: SHA-256 over its kind, its code, the keys of what it reads and its parameters.

What does not decide an artifact's content is in no key: paths, the store, the engine, names of accelerators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from artifacts.contract import Params, StageKind, StagePlan, canonical_json
from launcher.names import artifact_prefix

#: Code digest of a stage (`launcher.stages.code.CodeDigests`, or a fixed one in tests).
CodeDigest = Callable[[StageKind], str]


def stage_key(kind: StageKind, code: str, inputs: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """64 hex digits. `inputs` are digests of what the stage reads, `params` what its content depends on."""
    parts = {"kind": kind, "code": code, "inputs": dict(inputs), "params": dict(params)}
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def stage(kind: StageKind, key: str, inputs: Mapping[str, StagePlan], params: Params) -> StagePlan:
    """The node of the plan with this key, reading the outputs of `inputs`."""
    return StagePlan(
        kind=kind,
        key=key,
        inputs={name: source.output for name, source in inputs.items()},
        output=artifact_prefix(kind, key),
        params=params,
    )
