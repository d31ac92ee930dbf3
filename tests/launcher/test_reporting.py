"""The pure parts of the report: scales, ticks, time, differences, numbers."""

from __future__ import annotations

import json
import math
from html import unescape
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.contract import LoraParams
from launcher.reporting import charts, data_view, words
from launcher.reporting.charts import Series
from launcher.reporting.collect import RunFacts, merged_steps
from launcher.reporting.differences import highlighted
from launcher.reporting.timeline import Clock, stage_lines
from launcher.reporting.view import method_words
from tests.plan_parts import train_params

finite = st.floats(-1e12, 1e12, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(finite, finite, st.integers(2, 8))
def test_ticks_enclose_the_values_in_even_steps(a: float, b: float, wanted: int) -> None:
    low, high = min(a, b), max(a, b)
    if 0 < high - low < 1e-6 * abs(high):
        return  # closer than an axis can tell apart
    values = charts.ticks(low, high, wanted)
    span = (high - low) or abs(low) or 1.0
    assert values[0] <= low + 1e-6 * span
    assert values[-1] >= high - 1e-6 * span
    assert 2 <= len(values) <= wanted + 3
    steps = [later - earlier for earlier, later in pairwise(values)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0.13, 8.0, [0.1, 0.2, 0.5, 1, 2, 5, 10]),
        (0.2, 2.0, [0.2, 0.5, 1, 2]),
        (1e-6, 3.0, [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10]),
        (1.0, 1.0, [1]),
    ],
)
def test_ticks_of_a_log_scale(low: float, high: float, values: list[float]) -> None:
    assert charts.log_ticks(low, high) == pytest.approx(values)


def test_a_log_scale_gives_equal_ratios_equal_lengths() -> None:
    scale = charts.Scale(0.1, 10.0, 0.0, 100.0, log=True)
    assert [scale(value) for value in (0.1, 1.0, 10.0)] == pytest.approx([0, 50, 100])
    points = [(1.0, 0.1), (2.0, 1.0), (3.0, 10.0)]
    heights = [point[1] for point in hovered(charts.line_chart([Series("x", points)], x_label="", log=True))]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    unfit = [(1.0, 0.0), (2.0, 1.0), (3.0, 10.0)]  # no logarithm of 0: as without `log`
    heights = [point[1] for point in hovered(charts.line_chart([Series("x", unfit)], x_label="", log=True))]
    assert heights[0] - heights[1] == pytest.approx((heights[0] - heights[2]) / 10, abs=0.2)


def hovered(chart: str | None) -> list[Any]:
    assert chart is not None
    points: list[Any] = json.loads(unescape(chart.split('data-points="')[1].split('"')[0]))["series"][0][
        "points"
    ]
    return points


def test_chart_leaves_out_what_is_not_finite() -> None:
    points = [(1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 1.0)]
    chart = charts.line_chart([Series("loss", points)], x_label="step")
    assert chart is not None
    assert "nan" not in chart
    assert "inf" not in chart
    data = json.loads(unescape(chart.split('data-points="')[1].split('"')[0]))
    assert [point[2:] for point in data["series"][0]["points"]] == [["1", "2"], ["4", "1"]]
    assert charts.line_chart([Series("loss", [(1.0, math.nan)])], x_label="step") is None


def test_thinning_keeps_the_peaks() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    kept = charts.thinned(points)
    assert len(kept) <= 600
    assert (4321.0, 9.0) in kept
    assert kept == sorted(kept)


def test_smoothing_does_not_lag_behind_a_slope() -> None:
    points = [(float(x), 3.0 * x) for x in range(200)]
    assert [y for _, y in charts.smoothed(points)] == pytest.approx([y for _, y in points])


def test_clock_cuts_long_pauses_out() -> None:
    clock = Clock([(0.0, 10.0), (5.0, 20.0), (100_000.0, 100_020.0)])
    assert len(clock.breaks) == 1
    assert clock.breaks[0][1] == 99_980.0
    assert clock(0.0) == 0.0
    assert clock(100_020.0) == pytest.approx(1.0)
    assert clock(20.0) == pytest.approx(clock(50_000.0))
    assert 0.45 < clock(20.0) < 0.5


def test_clock_keeps_the_seconds_in_which_a_stage_starts() -> None:
    clock = Clock([(0.0, 1.0), (30.0, 40.0)])
    assert clock.breaks == []
    assert clock.total == 40.0


def test_stage_lines() -> None:
    rows = [
        {"time_s": 1, "stage": "train", "kind": "started"},
        {"time_s": 3, "stage": "train", "kind": "checkpoint", "step": 5},
        {"time_s": 9, "stage": "train", "kind": "started"},
        {"time_s": 12, "stage": "train", "kind": "restarted"},
        {"time_s": 13, "stage": "train", "kind": "started"},
        {"time_s": 15, "stage": "train", "kind": "finished"},
        {"time_s": 15, "stage": "train", "kind": "finished"},
    ]
    prepare, train = stage_lines(["prepare", "train"], rows)
    assert prepare.bars == []
    assert [(bar.start_s, bar.end_s, bar.ending) for bar in train.bars] == [
        (1, 3, "interrupted"),
        (9, 12, "restarted"),
        (13, 15, "finished"),
    ]
    assert train.checkpoints == [(3, 5)]
    assert train.seconds == 7


def test_the_last_attempt_at_a_step_counts() -> None:
    rows = [
        {"step": 2, "attempt": 2, "loss": 0.2},
        {"step": 1, "attempt": 1, "loss": 1.0},
        {"step": 2, "attempt": 1, "loss": 9.0},
    ]
    assert [row["loss"] for row in merged_steps(rows)] == [1.0, 0.2]


@given(st.text(max_size=60), st.text(max_size=60))
def test_differences_change_no_character(answer: str, reference: str) -> None:
    html = str(highlighted(answer, reference))
    assert unescape(html.replace("<mark>", "").replace("</mark>", "")) == unescape(
        answer.replace("&", "&amp;")
    )


def test_differences() -> None:
    assert highlighted("a <b> c", "a <b> c") == "a &lt;b&gt; c"
    assert highlighted("seven in the evening", "seven in the morning") == "seven in the <mark>evening</mark>"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"lora": LoraParams(rank=8)}, "LoRA, rank 8"),
        ({"lora": LoraParams(dora=True), "quantization": "nf4"}, "DoRA, rank 16, base in nf4"),
        ({"method": "ia3", "lora": None}, "IA3"),
        ({"method": "full", "lora": None}, "full fine-tuning"),
    ],
)
def test_methods(params: dict[str, Any], text: str) -> None:
    assert method_words(train_params(**{"method": "lora", **params})) == text


def test_numbers() -> None:
    assert [words.number(value) for value in (0, 0.69314, 1.2345e-5, 12345.6, math.nan, None)] == [
        "0",
        "0.6931",
        "1.234e-5",
        "12,346",
        "nan",
        "–",
    ]
    assert [words.count(value) for value in (999, 12_345, 1_312_000, 7.8e9)] == [
        "999",
        "12,345",
        "1.31M",
        "7.8B",
    ]
    assert [words.size(value) for value in (23, 1_140, 16_400_000_000)] == ["23 B", "1.14 kB", "16.4 GB"]


def test_what_the_data_report_says_of_its_records() -> None:
    file = {"path": "/data/a.jsonl", "weight": 2, "lines": 8000, "lost": {"id": 4000, "messages[].name": 3}}
    other = {"path": "/data/b.jsonl", "weight": 1.0, "lines": 3, "lost": {}}
    report = {
        "splits": {"train": {"files": [file, other]}},
        "duplicates": 5,
        "near_duplicates": 7,
        "overlap": {"test": 0},
        "eval_test_overlap": 2,
        "eval_fraction": 0.05,
    }
    facts = RunFacts(run_id="r", plan=None, data=report)
    assert data_view.data_notes(facts) == [
        "5 training records repeat an earlier one.",
        "7 more do but for case, spaces and punctuation, where the question ends and the answer begins.",
        "2 prompts of the test split also occur in the eval split.",
        "The eval split was set aside from the training records: 0.05 of them.",
        "a.jsonl passes 2 times per epoch: 8,000 records.",
        "Not learnt from a.jsonl, of so many records: id (4,000), messages[].name (3).",
    ]
