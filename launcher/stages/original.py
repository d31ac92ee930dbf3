"""Stage `original`: the unquantized model that a GPTQ base was made of, for the merge."""

from __future__ import annotations

import os
from collections.abc import Mapping

from artifacts.contract import ModelParams, StageKind, StagePlan
from launcher.digests import Digests
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages import model, sources
from launcher.stages.sources import Named, Source


def find(
    job: Loaded[Job],
    digests: Digests,
    *,
    rehearse: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Source:
    """What the job names as `merge.original`; nothing where it names none, or is to `rehearse`: its twin
    holds plain weights."""
    section = job.value.merge.original
    if section is None or rehearse:
        return Source()
    named = Named("merge.original", job.where, job.path)
    return sources.find(section, named, digests, environment=environment)


def plan(params: ModelParams) -> StagePlan:
    """The stage. Its artifact is that of the same model as anybody's base."""
    return model.taken(StageKind.ORIGINAL, params)
