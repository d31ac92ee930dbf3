"""GPTQ (https://arxiv.org/abs/2210.17323) by gptqmodel, for a process of its own: gptqmodel starts threads,
changes other libraries and writes where it stands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from artifacts.contract import QuantizeParams
from train.processes import available_cores
from train.quantizing.documents import Document
from train.stage import StageUserError

#: gptqmodel's settings that are environment variables (7.7).
_ENVIRONMENT = {
    # Packing by its own extension would compile that for half a minute, or minutes where cores are busy.
    "GPTQMODEL_DISABLE_PACK_EXT": "1",
    "GPTQMODEL_OFFLINE": "1",
    "TERM": "dumb",  # lines, no progress bars
}
#: Of what gptqmodel notes beside the weights, what decided them; the rest is of this machine and run.
_NOTED = (
    "quantizer",
    "uri",
    "damp_percent",
    "damp_auto_increment",
    "static_groups",
    "true_sequential",
    "mse",
    "act_group_aware",
)


def quantize(
    base: Path,
    folder: Path,
    documents: Sequence[Document],
    params: QuantizeParams,
    work: Path,
    told: Callable[[int, int, str], None],
    *,
    dtype: str,
) -> dict[str, Any]:
    """Write the quantized weights of the model in `base` to `folder`: one block of layers at a time is in
    memory, those that are done wait in `work`. `dtype`: of what is not quantized. Returns what loaders read
    as `quantization_config`.

    Leaves this process in another folder and with other settings. Raises StageUserError for a model that
    gptqmodel doesn't know.
    """
    cores = available_cores()
    os.environ |= _ENVIRONMENT | {"GPTQMODEL_CPU_WORKERS": str(max(2, cores))}  # it refuses 1
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(work)  # it writes logs/

    import torch
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.models.auto import SUPPORTED_MODELS
    from transformers import AutoConfig

    torch.set_num_threads(cores)
    trust = params.trust_remote_code
    config = AutoConfig.from_pretrained(base, trust_remote_code=trust, local_files_only=True)
    if config.model_type.lower() not in SUPPORTED_MODELS:
        raise StageUserError(f"gptqmodel knows no {config.model_type} models", "leave quantize out")
    wanted = _settings(params, work / "blocks")
    model = GPTQModel.load(str(base), wanted, dtype=getattr(torch, dtype), trust_remote_code=trust)
    blocks = config.get_text_config().num_hidden_layers

    def on_layer(layer_idx: int, submodule_finalized: bool) -> None:
        if not submodule_finalized:  # called again when its weights are packed, from another thread
            told(layer_idx + 1, blocks, "layers")

    model.layer_callback = on_layer
    model.quantize(
        [_example(document) for document in documents],
        batch_size=1,
        calibration_data_min_length=1,
        backend=BACKEND.GPTQ_TORCH,
    )
    made = work / "made"
    model.save(str(made))
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*made.glob("*.safetensors"), *made.glob("*.safetensors.index.json")):
        shutil.move(path, folder / path.name)
    shutil.rmtree(work / "blocks", ignore_errors=True)
    return quantization_config(json.loads((made / "quantize_config.json").read_bytes()))


def quantization_config(written: dict[str, Any]) -> dict[str, Any]:
    """gptqmodel's description of the weights without what is true of this machine alone."""
    noted = {name: value for name, value in written.get("meta", {}).items() if name in _NOTED}
    return written | {"meta": noted}


def _settings(params: QuantizeParams, blocks: Path) -> Any:
    import torch
    from gptqmodel import QuantizeConfig

    return QuantizeConfig(
        bits=params.bits,
        group_size=params.group_size,
        desc_act=params.desc_act,
        act_group_aware=not params.desc_act,  # most of desc_act's gain, at no cost in serving
        damp_percent=params.damping,
        device="cuda:0" if torch.cuda.is_available() else "cpu",
        offload_to_disk=True,
        offload_to_disk_path=str(blocks),
    )


def _example(document: Document) -> dict[str, Any]:
    import torch

    ids = torch.tensor(document.input_ids, dtype=torch.long)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
