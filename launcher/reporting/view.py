"""What the page shows, computed from a run's facts: plain values, ready to be laid out by page.html.j2."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from artifacts.contract import Method, StageKind, TrainParams
from launcher.reporting import answers, charts, data_view, products, provenance, words
from launcher.reporting.charts import Series
from launcher.reporting.collect import RunFacts
from launcher.reporting.timeline import Clock, StageLine, stage_lines

Values = dict[str, Any]

METHODS: dict[Method, str] = {
    "full": "full fine-tuning",
    "partial": "partial fine-tuning",
    "lora": "LoRA",
    "prefix_tuning": "prefix tuning",
    "p_tuning_v2": "P-tuning v2",
    "prompt_tuning": "prompt tuning",
    "llama_adapter": "LLaMA-Adapter",
    "ia3": "IA3",
}
SCORES = {
    "exact_match": "Exact match",
    "bleu4": "BLEU-4",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}


def view(facts: RunFacts) -> Values:
    """The template's variables."""
    cards = answers.before_and_after(facts.predictions)
    return {
        "name": facts.plan.name,
        "run_id": facts.run_id,
        "outcome": outcome(facts),
        "subtitle": subtitle(facts),
        "scores": score_cards(facts),
        "figures": figures(facts),
        "curves": curves(facts),
        "timeline": timeline(facts),
        "products": products.by_product(products.figures(facts.plan, facts.manifests)),
        "answers": cards,
        "answer_choices": answers.choices(cards),
        "answers_total": (facts.scores or {}).get("records", len(facts.predictions)),
        "data": data_view.data_splits(facts),
        "data_notes": data_view.data_notes(facts),
        "bad_records": data_view.bad_records(facts),
        "histogram": data_view.length_histogram(facts),
        "derived": provenance.derived(facts),
        "job": provenance.job_text(facts.plan.job),
        "cluster": facts.plan.cluster,
        "engine": facts.plan.engine,
        "plan_digest": facts.plan.digest,
        "inputs": provenance.input_digests(facts),
        "artifacts": provenance.artifact_rows(facts),
        "versions": provenance.versions(facts),
    }


# The top of the page ----------------------------------------------------------------------------------------


def outcome(facts: RunFacts) -> Values:
    """How the run ended: by its artifacts where all are there, else by what its pilot said last."""
    rows = [row for row in facts.events if row.get("stage") == "run"]
    last = next((row for row in reversed(rows) if row["kind"] != "note"), {})
    failed = next((row for row in reversed(facts.events) if row["kind"] == "failed"), {})
    said = {"cause": "", "advice": "", "evidence": ""}
    if len(facts.manifests) == len(facts.plan.stages):
        return said | {"state": "complete", "text": "Complete"}
    if last.get("kind") == "drained":
        way_on = f"Continue with: slipway resume {facts.run_id}"
        return said | {"state": "drained", "text": "Stopped on request", "advice": way_on}
    if last.get("kind") == "failed" or (failed and not rows):
        stage = last.get("failed_stage") or failed.get("stage", "")
        said |= {name: last.get(name) or failed.get(name) or "" for name in said}
        return said | {"state": "failed", "text": f"Failed in {stage}" if stage else "Failed"}
    return said | {"state": "open", "text": "Not finished"}


def subtitle(facts: RunFacts) -> list[str]:
    """A few words each: model, method, data, hardware."""
    kinds = {stage.kind: stage.params for stage in facts.plan.stages}
    parts = []
    if model := kinds.get(StageKind.MODEL):
        twin = f"tiny {model.twin.architecture} twin" if model.twin else None
        parts.append(twin or str(model.location or model.source).rstrip("/").rpartition("/")[2])
    if adapter := kinds.get(StageKind.ADAPTER):
        parts.append(f"adapter {str(adapter.location).rstrip('/').rpartition('/')[2]}")
    if train := kinds.get(StageKind.TRAIN):
        parts.append(method_words(train))
        parts.append(f"{train.epochs:g} epochs" if train.epochs else f"{train.steps} steps")
        workers = f"{train.world_size} worker{'s' * (train.world_size > 1)}"
        parts.append(f"{workers} ({train.accelerator or 'CPU'}), {train.strategy}, {train.precision}")
    return parts


def method_words(train: TrainParams) -> str:
    """`LoRA, rank 16, base in nf4`."""
    name = METHODS[train.method]
    if lora := train.lora:
        name = f"{'rs' if lora.rslora else ''}{'DoRA' if lora.dora else 'LoRA'}, rank {lora.rank}"
    return name if train.quantization == "none" else f"{name}, base in {train.quantization}"


def score_cards(facts: RunFacts) -> list[Values]:
    tuned, base = (facts.scores or {}).get("tuned") or {}, (facts.scores or {}).get("base") or {}
    return [
        {
            "label": label,
            "after": tuned[name],
            "before": base.get(name),
            "gain": tuned[name] - base[name] if name in base else None,
        }
        for name, label in SCORES.items()
        if name in tuned
    ]


def figures(facts: RunFacts) -> list[Values]:
    """The run in numbers: (label, value, remark)."""
    rows: list[tuple[str, str, str]] = []
    lines = stage_lines([stage.kind.value for stage in facts.plan.stages], facts.events)
    if spans := _spans(facts, lines):
        slowest = max(lines, key=lambda line: line.seconds)
        remark = f"{slowest.name} {words.duration(slowest.seconds)}"
        rows.append(("Time", words.duration(Clock(spans).total), remark))
    if facts.steps:
        first, last = facts.steps[0], facts.steps[-1]
        rows.append(("Training loss", words.number(last["loss"]), f"from {words.number(first['loss'])}"))
        rows.append(("Steps", words.count(last["step"]), f"{last.get('epoch', 0):.3g} epochs"))
    if facts.evaluations:
        first, last = facts.evaluations[0], facts.evaluations[-1]
        best = min(facts.evaluations, key=lambda row: float(row["eval_loss"]))
        remark = f"from {words.number(first['eval_loss'])}" if first is not last else ""
        if best is not last:
            remark = f"best {words.number(best['eval_loss'])}, step {best['step']}"
        rows.append(("Evaluation loss", words.number(last["eval_loss"]), remark))
    tuned, base = ((facts.scores or {}).get(name) or {} for name in ("tuned", "base"))
    if tuned.get("perplexity"):
        remark = f"base model {words.number(base['perplexity'])}" if base.get("perplexity") else ""
        rows.append(("Perplexity of references", words.number(tuned["perplexity"]), remark))
    rates = sorted(row["tokens_per_second"] for row in facts.steps if row.get("tokens_per_second"))
    if rates:
        rows.append(("Throughput", words.count(rates[len(rates) // 2]), "tokens/s, median"))
    memory = [row["peak_memory_bytes"] for row in facts.steps if row.get("peak_memory_bytes")]
    if memory:
        rows.append(("Peak memory", words.size(max(memory)), "of one worker"))
    return [{"label": label, "value": value, "remark": remark} for label, value, remark in rows]


# Training ---------------------------------------------------------------------------------------------------


def curves(facts: RunFacts) -> list[Values]:
    """Charts by training step; a chart without data is left out."""

    def points(name: str, rows: list[Values] = facts.steps) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]

    losses = [
        Series("training", points("loss"), "a", smooth=True),
        Series("evaluation", points("eval_loss", facts.evaluations), "b", dots=True),
    ]
    speeds = [
        Series("all tokens", points("tokens_per_second"), "a"),
        Series("supervised tokens", points("supervised_tokens_per_second"), "c"),
    ]
    found = [
        ("Loss", losses, charts.line_chart(losses, x_label="step")),
        (
            "Tokens per second",
            speeds,
            charts.line_chart(speeds, x_label="step", describe=words.count, from_zero=True),
        ),
        ("Learning rate", [], _single("learning rate", points("learning_rate"), "a", from_zero=True)),
        ("Gradient norm", [], _single("gradient norm", points("grad_norm"), "c", from_zero=True)),
    ]
    return [
        {
            "title": title,
            "chart": chart,
            "legend": [(line.label, line.style) for line in lines if line.points],
        }
        for title, lines, chart in found
        if chart is not None
    ]


def _single(label: str, points: list[tuple[float, float]], style: str, *, from_zero: bool) -> Markup | None:
    return charts.line_chart([Series(label, points, style)], x_label="step", from_zero=from_zero)


def timeline(facts: RunFacts) -> Values | None:
    """A row per stage with its bars in percent of the width; None where nothing ran."""
    lines = stage_lines([stage.kind.value for stage in facts.plan.stages], facts.events)
    spans = _spans(facts, lines)
    if not spans:
        return None
    clock, start = Clock(spans), min(start for start, _ in spans)
    rows = []
    for line in lines:
        bars = [
            {
                "left": 100 * clock(bar.start_s),
                "width": max(0.35, 100 * (clock(bar.end_s) - clock(bar.start_s))),
                "ending": bar.ending,
                "title": f"{line.name}: {words.duration(bar.end_s - bar.start_s)}, {bar.ending},"
                f" from +{words.duration(bar.start_s - start)}",
            }
            for bar in line.bars
        ]
        marks = [
            {"left": 100 * clock(at), "title": f"checkpoint at step {step}"} for at, step in line.checkpoints
        ]
        state = "done" if line.name in facts.manifests else ("open" if line.bars else "pending")
        note = (
            words.duration(line.seconds) if bars else ("already there" if state == "done" else "not reached")
        )
        rows.append({"name": line.name, "bars": bars, "marks": marks, "state": state, "note": note})
    breaks = [{"left": 100 * at, "title": f"paused for {words.duration(idle)}"} for at, idle in clock.breaks]
    began, ended = words.moment(start), words.moment(max(end for _, end in spans))
    return {
        "rows": rows,
        "breaks": breaks,
        "began": began,
        "ended": ended,
        "total": words.duration(clock.total),
    }


def _spans(facts: RunFacts, lines: list[StageLine]) -> list[tuple[float, float]]:
    """When anything ran: stages, and the starting of the pilot before the first of them."""
    spans = [(bar.start_s, bar.end_s) for line in lines for bar in line.bars]
    starts = [row["time_s"] for row in facts.events if (row["stage"], row["kind"]) == ("run", "started")]
    return spans + [(start, start) for start in starts] if spans else []
