"""Stage `quantize`: a whole model -> the same in 4 or 8 bits, by GPTQ, calibrated on the run's own data.

The unquantized model is never in memory beside anything else: one process quantizes it block by block and
measures what it wrote, as plain transformers loads it; another measures the model as it was.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.contract import QuantizeParams
from artifacts.manifest import ArtifactWriter
from train import lean_peft
from train.child import in_child
from train.data.reader import PreparedSplit
from train.merging.companions import companion_files
from train.quantizing import fitting, gptq, perplexity
from train.quantizing.documents import Choice, choose
from train.quantizing.kernels import loading_config
from train.quantizing.perplexity import Fit
from train.stage import StageContext, StageError, StageUserError

#: What describes the weights that were: their index, and how they were quantized.
_OF_BASE = ("config.json", "quantize_config.json", "quantization.json")


def run(context: StageContext) -> None:
    """Write `quantized/<key>/`. Raises StageUserError for a model that GPTQ can't pack, StageError where the
    perplexity rises above the bound."""
    params: QuantizeParams = context.stage.params
    base = context.input_folder("model").absolute()
    check(base, params)
    choice = choose(*_splits(context.input_folder("prepare")), params)
    work = context.work.absolute() / "quantize"
    shutil.rmtree(work, ignore_errors=True)  # an earlier attempt's
    folder, log, told = work / "model", work / "gptqmodel.log", context.events.progress
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # forked processes can't use a CUDA context made here
    after = in_child("quantizing", _quantize, base, folder, choice, params, work, told=told, log=log)
    before = in_child("measuring the unquantized model", _measure, base, choice, params, told=told, log=log)
    report = described(params, choice, before, after, sizes=(weight_bytes(base), weight_bytes(folder)))
    increase = perplexity.increase(before, after)
    print(f"{params.bits} bits: perplexity {before.perplexity} -> {after.perplexity} ({increase:+.2%})")
    check_increase(report, params, increase)
    writer = ArtifactWriter(context.store, context.stage.output)
    writer.write_bytes("quantization.json", _json(report))
    writer.add_folder(folder, move=True)
    facts = ("bits", "group_size", "perplexity_before", "perplexity_after", "bytes_before", "bytes_after")
    writer.commit(**{name: report[name] for name in facts})


def check(base: Path, params: QuantizeParams) -> None:
    """Raises StageUserError for a model that can't be quantized as asked."""
    from transformers import AutoConfig

    trust = params.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=trust, local_files_only=True)
        fitting.check_model(base, config)
        shapes = fitting.linear_shapes(config, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise StageUserError(f"transformers can't build the model: {cause}", "name another") from error
    fitting.check_shapes(shapes, params.group_size)


def described(
    params: QuantizeParams, choice: Choice, before: Fit, after: Fit, *, sizes: tuple[int, int]
) -> dict[str, Any]:
    """`quantization.json`. Perplexities are of the tokens that training learns, those of `all_tokens` of the
    others too; null where they are beyond number."""
    return {
        "bits": params.bits,
        "group_size": params.group_size,
        "desc_act": params.desc_act,
        "damping": params.damping,
        "seed": params.seed,
        "calibration": {
            "sequences": len(choice.calibration),
            "tokens": sum(len(each.input_ids) for each in choice.calibration),
        },
        "evaluation": {
            "split": choice.split,
            "sequences": len(choice.evaluation),
            "learnt_tokens": before.learnt_tokens,
            "tokens": before.all_tokens,
        },
        "perplexity_before": before.perplexity,
        "perplexity_after": after.perplexity,
        "all_tokens": {
            "perplexity_before": before.perplexity_of_all,
            "perplexity_after": after.perplexity_of_all,
        },
        "bytes_before": sizes[0],
        "bytes_after": sizes[1],
    }


def check_increase(report: dict[str, Any], params: QuantizeParams, increase: float) -> None:
    """Raises StageError where the perplexity rose by a larger share than is allowed (or is no number)."""
    if increase <= params.max_perplexity_increase:
        return
    calibration, evaluation = report["calibration"], report["evaluation"]
    ways = [
        *(("bits: 8",) if params.bits == 4 else ()),
        *(("a smaller group_size",) if params.group_size != 32 else ()),
        *(() if params.desc_act else ("desc_act: true",)),
        f"more to calibrate on (these were {calibration['sequences']} sequences, {calibration['tokens']} "
        "tokens)",
        "a larger max_perplexity_increase",
    ]
    raise StageError(
        f"in {params.bits} bits the perplexity on {evaluation['sequences']} sequences of "
        f"{evaluation['split']} is {report['perplexity_after']}, before {report['perplexity_before']}: "
        f"{increase:+.1%}, allowed is {params.max_perplexity_increase:+.1%}",
        f"under `quantize`, set {' or '.join(ways)}",
    )


def _splits(prepared: Path) -> tuple[PreparedSplit, PreparedSplit | None]:
    try:
        evaluation = PreparedSplit(prepared, "eval")
    except FileNotFoundError:
        evaluation = None
    return PreparedSplit(prepared, "train"), evaluation


def _quantize(
    base: Path, folder: Path, choice: Choice, params: QuantizeParams, work: Path, told: Callable[..., None]
) -> Fit:
    lean_peft.prepare("gptq")
    config = json.loads((base / "config.json").read_bytes())
    dtype = kept_type(config)
    stored = gptq.quantize(base, folder, choice.calibration, params, work / "gptqmodel", told, dtype=dtype)
    complete(base, folder, config | {"dtype": dtype, "quantization_config": stored})
    return perplexity.measure_folder(
        folder,
        choice.evaluation,
        lambda done: told(done, len(choice.evaluation), "sequences"),
        trust_remote_code=params.trust_remote_code,
        quantization_config=loading_config(stored),
    )


def _measure(base: Path, choice: Choice, params: QuantizeParams, told: Callable[..., None]) -> Fit:
    return perplexity.measure_folder(
        base,
        choice.evaluation,
        lambda done: told(done, len(choice.evaluation), "sequences"),
        trust_remote_code=params.trust_remote_code,
    )


def kept_type(config: dict[str, Any]) -> str:
    """Of the weights that are not quantized, by the model's config.json: as it was, but in 16 bits, which is
    what kernels for packed weights take."""
    written = config.get("dtype") or config.get("torch_dtype")  # its name before transformers 5
    return "float16" if written == "float16" else "bfloat16"


def complete(base: Path, folder: Path, config: dict[str, Any]) -> None:
    """Put beside the quantized weights in `folder` their `config`, and what lies beside those of `base`:
    tokenizer, template, generation config, remote code."""
    for name in companion_files(base):
        if name not in _OF_BASE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, folder / name)
    config.pop("torch_dtype", None)
    (folder / "config.json").write_bytes(_json(config))
    # where gptqmodel itself looks
    (folder / "quantize_config.json").write_bytes(_json(config["quantization_config"]))


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
