"""What the launcher and the training code say to each other: the plan, as stdlib dataclasses.

The launcher writes a `Plan` as canonical JSON; every stage process reads it back with `Plan.from_json` and
finds its own `StagePlan` in it. Neither side imports the other. Durations stay as the user wrote them
(epochs or steps): `prepare` knows the sequences per epoch, `train` turns them into steps.

`words` are shared names, `inputs`, `training` and `products` the stages' parameters, `plan` the whole,
`codec` its JSON. Import from here.
"""

from artifacts.contract.codec import (
    canonical_json,
    decode,
)
from artifacts.contract.inputs import (
    DataFile,
    DataParams,
    ImageParams,
    ModelParams,
    Reading,
    TwinParams,
)
from artifacts.contract.plan import (
    PARAMS,
    PLAN_VERSION,
    Derived,
    Params,
    Plan,
    StagePlan,
    original_prefix,
)
from artifacts.contract.products import (
    GgufParams,
    MergeParams,
    PredictParams,
    PublishParams,
    QuantizeParams,
)
from artifacts.contract.talk import Source
from artifacts.contract.training import (
    LoraParams,
    PartialParams,
    PrepareParams,
    PromptParams,
    TemplateParams,
    TrainParams,
)
from artifacts.contract.words import (
    EXIT_DONE,
    EXIT_DRAINED,
    EXIT_FAILED,
    EXIT_USER_ERROR,
    IGNORED_LABEL,
    TOKENIZER_FOLDER,
    Attention,
    Engine,
    GgufType,
    Method,
    Offload,
    Optimizer,
    Precision,
    Product,
    Quantization,
    RecordFormat,
    StageKind,
    Strategy,
    TrainOn,
)

__all__ = [
    "EXIT_DONE",
    "EXIT_DRAINED",
    "EXIT_FAILED",
    "EXIT_USER_ERROR",
    "IGNORED_LABEL",
    "PARAMS",
    "PLAN_VERSION",
    "TOKENIZER_FOLDER",
    "Attention",
    "DataFile",
    "DataParams",
    "Derived",
    "Engine",
    "GgufParams",
    "GgufType",
    "ImageParams",
    "LoraParams",
    "MergeParams",
    "Method",
    "ModelParams",
    "Offload",
    "Optimizer",
    "Params",
    "PartialParams",
    "Plan",
    "Precision",
    "PredictParams",
    "PrepareParams",
    "Product",
    "PromptParams",
    "PublishParams",
    "Quantization",
    "QuantizeParams",
    "Reading",
    "RecordFormat",
    "Source",
    "StageKind",
    "StagePlan",
    "Strategy",
    "TemplateParams",
    "TrainOn",
    "TrainParams",
    "TwinParams",
    "canonical_json",
    "decode",
    "original_prefix",
]
