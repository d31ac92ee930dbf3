"""The base model as others know it: its name on a hub, or its digest."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.contract import ModelParams, Plan, Product, StageKind, StagePlan


@dataclass(frozen=True)
class BaseModel:
    """`name` in words or as on a hub; `pin`: its revision there, else its SHA-256; `hub`: which one."""

    name: str
    pin: str | None = None
    hub: str | None = None


def stage_of(plan: Plan, main: Product) -> StagePlan | None:
    """The stage of the base model that the main product goes with: an adapter of a quantized one with that,
    a whole model with the unquantized original that it was merged into."""
    kinds = (StageKind.MODEL,) if main == "adapter" else (StageKind.ORIGINAL, StageKind.MODEL)
    return next((plan.stage(kind) for kind in kinds if plan.has(kind)), None)


def hub_name(plan: Plan, main: Product) -> str | None:
    """Its repository on the Hugging Face hub, None where it has none there."""
    stage = stage_of(plan, main)
    if stage is None:
        return None
    params: ModelParams = stage.params
    return params.location if params.source == "hub" and params.hub == "huggingface" else None


def told(plan: Plan, main: Product) -> BaseModel:
    """What a card says of it. Never where it lay."""
    stage = stage_of(plan, main)
    if stage is None:
        return BaseModel("a base model that this run did not fetch itself")
    params: ModelParams = stage.params
    if params.source == "hub":
        return BaseModel(params.location or "", params.revision, params.hub)
    if params.source == "twin":
        architecture = params.twin.architecture if params.twin else "language"
        return BaseModel(f"a tiny {architecture} model with random weights")
    return BaseModel("a model that is not on a hub", params.sha256)
