"""Stage `model`: the base model, or a tiny twin in its place."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from artifacts.contract import ModelParams, StageKind, StagePlan, TwinParams
from launcher.digests import Digests
from launcher.dimensions import Dimensions
from launcher.spec.base_model import Twin
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages import data as data_stage
from launcher.stages import sources
from launcher.stages.keys import CodeDigest, stage, stage_key
from launcher.stages.sources import Named, Source

#: The longest sequence of a twin, unless the job asks for longer ones.
TWIN_POSITIONS = 2048
#: Dimensions of a rehearsal's twin, which keeps the original's architecture, tokenizer and vocabulary.
REHEARSAL_TWIN = TwinParams(
    hidden_size=64, intermediate_size=128, layers=2, attention_heads=4, key_value_heads=2
)


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
    named = Named("model", job.where, job.path)
    found = sources.find(model, named, digests, weights=not rehearse, environment=environment)
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
    key = stage_key(StageKind.MODEL, code(StageKind.MODEL) if made else "", digests, key_params(params))
    return stage(StageKind.MODEL, key, {"data": data} if trains_tokenizer else {}, params)


def taken(kind: StageKind, params: ModelParams) -> StagePlan:
    """The stage of a model that is taken as it is. Kinds that share a folder share its artifact."""
    assert params.source != "twin"
    named = StageKind.MODEL if kind.folder == StageKind.MODEL.folder else kind
    return stage(kind, stage_key(named, "", {}, key_params(params)), {}, params)


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


def key_params(params: ModelParams) -> dict[str, object]:
    """What decides the content: its digest, or the pinned revision, or how it is made; not its place."""
    values = dataclasses.asdict(params)
    if params.sha256 is not None:
        del values["location"], values["hub"]
    return values
