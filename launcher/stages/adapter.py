"""Stage `adapter`: a PEFT adapter, or a whole trained model, that was made elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping

from artifacts.contract import ModelParams, StageKind, StagePlan
from launcher.digests import Digests
from launcher.spec.base_model import ModelSource
from launcher.stages import model, sources
from launcher.stages.in_place import ADAPTER_FILES
from launcher.stages.sources import Named, Source


def find(
    section: ModelSource, named: Named, digests: Digests, *, environment: Mapping[str, str] = os.environ
) -> Source:
    """The adapter that `section` names. Of one in a folder the source has no dimensions."""
    return sources.find(section, named, digests, contents=ADAPTER_FILES, environment=environment)


def plan(params: ModelParams) -> StagePlan:
    """The stage: used in place where it lies on this machine, keyed by its content."""
    return model.taken(StageKind.ADAPTER, params)
