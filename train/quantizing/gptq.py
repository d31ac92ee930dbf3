"""GPTQ (https://arxiv.org/abs/2210.17323) by gptqmodel, in a process of its own: it starts threads, changes
directories' content and other libraries, and takes 10 s to import."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from artifacts.contract import QuantizeParams
from train.processes import available_cores
from train.quantizing.documents import Document
from train.stage import StageError, StageUserError

_LOG = "gptqmodel.log"
_LAST_LINES = 40  # of that log, shown where gptqmodel fails
#: gptqmodel's settings, by its environment variables (7.7).
_ENVIRONMENT = {
    # Packing in Python: its extension is compiled for half a minute, to save less.
    "GPTQMODEL_DISABLE_PACK_EXT": "1",
    "GPTQMODEL_OFFLINE": "1",
    "LOGBAR_ANIMATION": "0",
    "LOGBAR_FORCE_PROGRESS": "0",
    "TERM": "dumb",  # no progress bars
    "HF_HUB_OFFLINE": "1",
}
#: Of what gptqmodel notes beside the weights, what decided them.
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
    """Write the quantized weights of the model in `base` to `folder`, block by block: one block at a time is
    in memory, those that are done lie in `work`. `dtype`: of what is not quantized. Returns what loaders read as `quantization_config`.

    Changes the process: its working folder, environment and threads. Raises StageError.
    """
    os.environ |= _ENVIRONMENT | {"GPTQMODEL_CPU_WORKERS": str(max(2, available_cores()))}  # 1 is refused
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(work)  # it writes logs/ there
    with _kept_output(work / _LOG):
        return _quantize(base, folder, documents, params, work, told, dtype=dtype)


def _quantize(
    base: Path,
    folder: Path,
    documents: Sequence[Document],
    params: QuantizeParams,
    work: Path,
    told: Callable[[int, int, str], None],
    *,
    dtype: str,
) -> dict[str, Any]:
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.models.auto import SUPPORTED_MODELS
    from transformers import AutoConfig

    torch.set_num_threads(available_cores())
    config = AutoConfig.from_pretrained(base, trust_remote_code=params.trust_remote_code)
    if config.model_type.lower() not in SUPPORTED_MODELS:
        raise StageUserError(
            f"gptqmodel knows no models of the type {config.model_type}", "leave quantize out"
        )
    wanted = QuantizeConfig(
        bits=params.bits,
        group_size=params.group_size,
        desc_act=params.desc_act,
        act_group_aware=not params.desc_act,
        damp_percent=params.damping,
        device="cuda:0" if torch.cuda.is_available() else "cpu",
        offload_to_disk=True,
        offload_to_disk_path=str(work / "blocks"),
    )
    model = GPTQModel.load(
        str(base), wanted, dtype=getattr(torch, dtype), trust_remote_code=params.trust_remote_code
    )
    blocks = config.get_text_config().num_hidden_layers
    model.layer_callback = lambda layer_idx, submodule_finalized: told(layer_idx + 1, blocks, "layers")
    calibration = [
        {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
        for ids in (torch.tensor(document.input_ids, dtype=torch.long) for document in documents)
    ]
    model.quantize(calibration, batch_size=1, calibration_data_min_length=1, backend=BACKEND.GPTQ_TORCH)
    made = work / "made"
    model.save(str(made))
    _move_weights(made, folder)
    return quantization_config(json.loads((made / "quantize_config.json").read_bytes()))


def quantization_config(written: dict[str, Any]) -> dict[str, Any]:
    """gptqmodel's description of the weights without what is true of this machine alone."""
    noted = {name: value for name, value in written.get("meta", {}).items() if name in _NOTED}
    return written | {"meta": noted}


def _move_weights(made: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*made.glob("*.safetensors"), *made.glob("*.safetensors.index.json")):
        shutil.move(path, folder / path.name)


@contextlib.contextmanager
def _kept_output(path: Path) -> Iterator[None]:
    """What this process and its libraries print goes to a file; the end of it to stderr where they fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    failed = True
    try:
        yield
        failed = False
    except StageError:
        failed = False
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in zip((1, 2), kept, strict=True):
            os.dup2(original, number)
            os.close(original)
        if failed:
            with path.open(encoding="utf-8", errors="replace") as lines:
                sys.stderr.write("".join(deque(lines, _LAST_LINES)))
