"""What was made of the trained model, as its stages' commit markers tell: figures for the report, comparisons
and the end of `slipway status`. What an older run's marker does not hold is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from artifacts.contract import Plan, StageKind
from artifacts.manifest import Manifest
from launcher.reporting import words

ADDRESS = "Address"
NAMES = {"merge": "merged model", "quantize": "GPTQ", "gguf": "GGUF", "publish": "published"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`value` for comparing and scripts, `text` for people. `better`: which way is; empty where neither."""

    stage: str
    label: str
    value: float | str
    text: str
    remark: str = ""
    better: Literal["lower", "higher", ""] = ""


def figures(plan: Plan, manifests: Mapping[str, Manifest]) -> list[Figure]:
    """`manifests` by stage kind, of the complete stages."""
    tellers = {
        StageKind.MERGE: _merged,
        StageKind.QUANTIZE: _quantized,
        StageKind.GGUF: _gguf,
        StageKind.PUBLISH: _published,
    }
    return [
        figure
        for stage in plan.stages
        if stage.kind in tellers and stage.kind in manifests
        for figure in tellers[stage.kind](plan, manifests)
    ]


def by_product(told: Sequence[Figure]) -> list[tuple[str, list[Figure]]]:
    """Each product's name, as people call it, and its figures."""
    stages = dict.fromkeys(figure.stage for figure in told)
    return [(NAMES[stage], [figure for figure in told if figure.stage == stage]) for stage in stages]


def one_line(told: Sequence[Figure], stage: str) -> str:
    """The figures of one product, but for where it is: `size 1.2 GB, drift 0.001`."""
    return ", ".join(
        f"{figure.label[0].lower()}{figure.label[1:]} {figure.text}"
        for figure in told
        if figure.stage == stage and figure.label != ADDRESS
    )


def _size(stage: str, label: str, size_bytes: float, remark: str = "") -> Figure:
    return Figure(
        stage=stage, label=label, value=size_bytes, text=words.size(size_bytes), remark=remark, better="lower"
    )


def _merged(plan: Plan, manifests: Mapping[str, Manifest]) -> Iterator[Figure]:
    made, params = manifests["merge"], plan.stage(StageKind.MERGE).params
    parameters = made.facts.get("parameters")
    remark = f"{words.count(parameters)} parameters" if parameters else ""
    yield _size("merge", "Size", made.size_bytes, remark)
    if (drift := _number(made.facts.get("drift"))) is not None:
        remark = f"of the logits' deviation, from base and adapter; the bound is {params.max_drift:g}"
        yield Figure(
            stage="merge", label="Drift", value=drift, text=words.number(drift), remark=remark, better="lower"
        )
    if (share := _number(made.facts.get("same_top_token"))) is not None:
        remark = "positions whose likeliest token is that of base and adapter"
        text = words.share(share)
        yield Figure(
            stage="merge", label="Same token", value=share, text=text, remark=remark, better="higher"
        )


def _quantized(plan: Plan, manifests: Mapping[str, Manifest]) -> Iterator[Figure]:
    made, params = manifests["quantize"], plan.stage(StageKind.QUANTIZE).params
    bits = made.facts.get("bits", params.bits)
    groups = f"groups of {params.group_size}" if params.group_size > 0 else "one group a row"
    yield Figure(stage="quantize", label="Bits", value=bits, text=str(bits), remark=groups)
    before, now = (_number(made.facts.get(f"bytes_{when}")) for when in ("before", "after"))
    yield Figure(
        stage="quantize",
        label="Size",
        value=now or made.size_bytes,
        text=_from_to(before, now or made.size_bytes, words.size),
        remark=f"weights, {now / before:.0%}" if before and now else "",
        better="lower",
    )
    unquantized, after = (_number(made.facts.get(f"perplexity_{when}")) for when in ("before", "after"))
    if after is not None:
        rise = f"{after / unquantized - 1:+.1%}; " if unquantized else ""
        yield Figure(
            stage="quantize",
            label="Perplexity",
            value=after,
            text=_from_to(unquantized, after, words.number),
            remark=f"{rise}the bound is {params.max_perplexity_increase:+.0%}",
            better="lower",
        )


def _gguf(plan: Plan, manifests: Mapping[str, Manifest]) -> Iterator[Figure]:
    made = manifests["gguf"]
    files = made.facts.get("files")
    if not isinstance(files, dict):
        files = {file.path: file.size_bytes for file in made.files if file.path.endswith(".gguf")}
    named = f"{plan.stage(StageKind.GGUF).params.name}-"
    for name, size_bytes in files.items():
        yield _size("gguf", str(name).removeprefix(named).removesuffix(".gguf"), size_bytes, str(name))
    if isinstance(same := made.facts.get("same_tokens"), bool):
        text = "yes" if same else "no"
        remark = "token ids in llama.cpp and in transformers"
        yield Figure(stage="gguf", label="Same tokens", value=text, text=text, remark=remark)
    shares = made.facts.get("same_answers")
    for kind, share in shares.items() if isinstance(shares, dict) else ():
        if (value := _number(share)) is not None:
            yield Figure(
                stage="gguf",
                label=f"Same answers ({kind})",
                value=value,
                text=f"{value:.0%}",
                remark="of llama.cpp and of transformers, greedy",
                better="higher",
            )


def _published(plan: Plan, manifests: Mapping[str, Manifest]) -> Iterator[Figure]:
    facts = manifests["publish"].facts
    if address := facts.get("address"):
        revision = str(facts.get("revision") or "")
        remark = f"revision {revision}" if revision else ""
        yield Figure(stage="publish", label=ADDRESS, value=str(address), text=str(address), remark=remark)


def _from_to(before: float | None, after: float, show: Callable[[float], str]) -> str:
    return show(after) if before is None else f"{show(before)} → {show(after)}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else None
