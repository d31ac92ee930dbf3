"""Stage `adapter`: a PEFT adapter, or a whole trained model, made elsewhere: fetched from a hub or used where
a store has it."""

from __future__ import annotations

from artifacts.contract import ModelParams
from train.model import from_hub, use_in_place
from train.stage import StageContext, StageUserError


def run(context: StageContext) -> None:
    """Write `adapters/<key>/`. Raises StageUserError for what is not there."""
    params: ModelParams = context.stage.params
    if params.source == "hub":
        from_hub(context, params)
    elif params.source == "store":
        use_in_place(context, params)
    else:
        raise StageUserError(
            "an adapter's folder lies on the machine that submits", "submit it from there again"
        )
