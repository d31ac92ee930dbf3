"""Stages after training asked for alone: merge, quantize, export, predict. Each is a run as a job's is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.commands.options import AsJson, ClusterName, Detach

if TYPE_CHECKING:
    from launcher.alone.given import GivenRun
    from launcher.alone.options import Command
    from launcher.commands.options import Place
    from launcher.spec.data import Split

_WHAT = "a folder, org/name@<commit> of the hub, or a run"
ModelOrRun = Annotated[
    str, typer.Argument(metavar="MODEL|ADAPTER|RUN", help=f"Of what: {_WHAT}.", show_default=False)
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="An adapter's base model: a folder, or org/name@<commit>. Left out: what the adapter names.",
        show_default=False,
    ),
]
To = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Also copy what was made there.", show_default=False),
]
DataFile = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="Records, as a job's data.", show_default=False),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A field of a job that has no option of its own, as data.format=alpaca; may be repeated.",
        show_default=False,
    ),
]


def merge(
    adapter: Annotated[
        str,
        typer.Argument(metavar="ADAPTER|RUN", help=f"What is merged: {_WHAT}.", show_default=False),
    ],
    base: Base = None,
    to: To = None,
    cluster: ClusterName = "local",
    settings: Settings = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Make one model of an adapter and its base model.

    Of any PEFT adapter (LoRA and its kin, IA3), whoever trained it. The merged model's logits are compared
    with those of base and adapter.

    Examples:

      slipway merge ./my-adapter --base Qwen/Qwen3-8B@<commit> --to ./my-model

      slipway merge support-bot
    """
    _carry_out("merge", adapter, base, {}, {}, settings, cluster, to, detach=detach, as_json=as_json)


def quantize(
    model: ModelOrRun,
    data: DataFile = None,
    eval_data: Annotated[
        str | None,
        typer.Option(
            "--eval",
            metavar="FILE",
            help="Records that the perplexity before and after is measured on. Left out: others of --data.",
            show_default=False,
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", metavar="4|8", help="Bits of a weight.", show_default="4")
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(
            "--group-size",
            metavar="N",
            help="Input channels that share a scale; -1: all of a row.",
            show_default="128",
        ),
    ] = None,
    desc_act: Annotated[
        bool, typer.Option("--desc-act", help="Columns in the order of falling activation.")
    ] = False,
    damping: Annotated[
        float | None,
        typer.Option("--damping", metavar="X", help="Share of the Hessian's diagonal.", show_default="0.05"),
    ] = None,
    max_perplexity_increase: Annotated[
        float | None,
        typer.Option(
            "--max-perplexity-increase",
            metavar="X",
            help="How much the perplexity may rise, as a share; above it the stage fails.",
            show_default="0.25",
        ),
    ] = None,
    base: Base = None,
    to: To = None,
    cluster: ClusterName = "local",
    settings: Settings = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Make a model small with GPTQ: 4 or 8 bits a weight.

    It is calibrated on the records of --data; of a run, on its own training data. An adapter is merged first.

    Examples:

      slipway quantize ./my-model --data train.jsonl --eval dev.jsonl --bits 4

      slipway quantize support-bot
    """
    section = {
        "bits": bits,
        "group_size": group_size,
        "desc_act": desc_act or None,
        "damping": damping,
        "max_perplexity_increase": max_perplexity_increase,
    }
    files: dict[Split, str | None] = {"train": data, "eval": eval_data}
    _carry_out("quantize", model, base, section, files, settings, cluster, to, detach=detach, as_json=as_json)


def export(
    model: ModelOrRun,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            "-t",
            metavar="TYPE",
            help="f16, q8_0 or q4_k_m; may be repeated, a file each.",
            show_default="q4_k_m",
        ),
    ] = None,
    base: Base = None,
    to: To = None,
    cluster: ClusterName = "local",
    settings: Settings = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Make GGUF files of a model, for llama.cpp and Ollama.

    An Ollama Modelfile lies beside them. An adapter is merged first.

    Example: slipway export ./my-model --type f16 --type q4_k_m --to ./my-model-gguf
    """
    section = {"types": types or None}
    _carry_out("export", model, base, section, {}, settings, cluster, to, detach=detach, as_json=as_json)


def predict(
    model: ModelOrRun,
    data: DataFile = None,
    base: Base = None,
    compare_base: Annotated[
        bool | None,
        typer.Option(
            "--compare-base/--no-compare-base",
            help="Also answer with the base model.",
            show_default="of a run yes, of an adapter no",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Only the first records.", show_default="all")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", metavar="N", help="Longest answer.", show_default="128"),
    ] = None,
    to: To = None,
    cluster: ClusterName = "local",
    settings: Settings = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Answer the questions of a file, and score the answers.

    The last turn of the assistant in each record is what an answer is compared with. Of a run without --data:
    its own test file.

    Examples:

      slipway predict ./my-model --data test.jsonl --limit 100

      slipway predict ./my-adapter --data test.jsonl --compare-base
    """
    section = {"limit": limit, "max_new_tokens": max_new_tokens, "base": compare_base}
    files: dict[Split, str | None] = {"test": data}
    _carry_out("predict", model, base, section, files, settings, cluster, to, detach=detach, as_json=as_json)


def _carry_out(
    command: Command,
    text: str,
    base: str | None,
    section: Mapping[str, Any],
    files: Mapping[Split, str | None],
    settings: list[str] | None,
    cluster: str,
    to: Path | None,
    *,
    detach: bool,
    as_json: bool,
) -> None:
    """Plan what is asked for, have it driven, and follow it to its end."""
    from launcher.alone.given import recognise
    from launcher.alone.options import STAGES, Asked
    from launcher.alone.planned import make
    from launcher.commands.follow import attend
    from launcher.commands.options import place_of
    from launcher.commands.starting import start
    from launcher.machine import detect
    from launcher.spec.load import load_cluster

    profile = load_cluster(cluster)
    place = place_of(cluster, profile.value)
    given_options = {name: value for name, value in section.items() if value is not None}
    asked = Asked(
        command=command,
        given=recognise(text, base, lambda run: _run(place, run)),
        sections={str(STAGES[command]): given_options} if given_options else {},
        data={split: path for split, path in files.items() if path is not None},
        overrides=settings or (),
    )
    plan = make(asked, profile, detect())
    target = _target(place, plan.stages[-1].output, to, detach=detach)
    attend(place, start(plan, place), detach=detach, as_json=as_json, copy_to=target)


def _run(place: Place, text: str) -> GivenRun:
    from launcher import record
    from launcher.alone.given import GivenRun
    from launcher.stages.done import is_done

    plan = record.load_plan(place.store, record.find(place.store, text))
    return GivenRun(plan, [stage.kind for stage in plan.stages if is_done(stage, place.store)])


def _target(place: Place, output: str, to: Path | None, *, detach: bool) -> Path | None:
    """Where to copy what is made, which is sure to work before anything begins; None for nowhere. Raises
    UserError."""
    from launcher import fetch
    from launcher.errors import Problem, UserError

    if to is not None and detach:
        way_out = "leave one of them out; `slipway fetch RUN --to DIR` copies it later"
        why = "the copy is made at the end, and --detach does not wait for it"
        raise UserError(Problem(where="", what="--to with --detach", why=why, way_out=way_out))
    if to is not None and not fetch.holds(place.store, output, to):
        fetch.require_free(to)
    return to
