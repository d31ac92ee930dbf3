"""Line and bar charts as SVG, drawn by hand: no library, no network. Colours come from the page's style
sheet, values under the pointer from its script, which reads `data-points`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from launcher.reporting import words

Point = tuple[float, float]

WIDTH, WIDE, HEIGHT = 520, 1060, 230  # pixels; about what the page gives them
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 36
_POINTS_DRAWN = 600
_SMOOTHED_FROM = 60  # points


@dataclass(frozen=True)
class Series:
    """`style` is a class of the style sheet (`a` to `h`); `dots` marks each point."""

    label: str
    points: Sequence[Point]
    style: str = "a"
    dots: bool = False
    smooth: bool = False


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [start, end] in pixels; with `log` equal ratios to equal lengths."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    describe: Callable[[float], str] = words.number,
    from_zero: bool = False,
    log: bool = False,
    title: str = "",
    points_drawn: int = _POINTS_DRAWN,
) -> Markup | None:
    """None where no series has a finite point. `title` is read out; of a series about `points_drawn` points
    are kept. With `log`, where all values are above 0, the vertical axis is logarithmic."""
    kept = [_finite(line) for line in series]
    kept = [line for line in kept if line.points]
    if not kept:
        return None
    xs = [x for line in kept for x, _ in line.points]
    ys = [y for line in kept for _, y in line.points]
    log = log and min(ys) > 0
    y_ticks = log_ticks(min(ys), max(ys)) if log else ticks(0.0 if from_zero else min(ys), max(ys), 5)
    low, high = min(xs), max(xs)
    x = Scale(low, high if high > low else low + 1, _LEFT, WIDTH - _RIGHT)
    y = Scale(min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys)), HEIGHT - _BOTTOM, _TOP, log)
    parts = [_grid(y_ticks, y, describe), _x_axis(low, high, x, x_label)]
    for line in kept:
        if line.smooth and len(line.points) >= _SMOOTHED_FROM:
            parts.append(_path(thinned(line.points, points_drawn), x, y, f"line {line.style} raw"))
            parts.append(_path(thinned(smoothed(line.points), points_drawn), x, y, f"line {line.style}"))
        else:
            parts.append(_path(thinned(line.points, points_drawn), x, y, f"line {line.style}"))
        if line.dots or len(line.points) == 1:
            parts += [
                f'<circle class="dot {line.style}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5"/>'
                for a, b in line.points
            ]
    hover = [
        {
            "label": line.label,
            "style": line.style,
            "points": [
                [round(x(a), 1), round(y(b), 1), words.number(a), describe(b)]
                for a, b in thinned(line.points, points_drawn)
            ],
        }
        for line in kept
    ]
    return _svg("".join(parts), f"{title or kept[0].label} by {x_label}", x_label, hover)


def histogram(rows: Sequence[tuple[str, float]], *, mark_last: bool, x_label: str) -> Markup | None:
    """Bars for (label, count); the last one in another colour where `mark_last`."""
    if not rows or not any(count for _, count in rows):
        return None
    top = ticks(0.0, max(count for _, count in rows), 4)
    y = Scale(0.0, top[-1], HEIGHT - _BOTTOM, _TOP)
    width = (WIDE - _RIGHT - _LEFT) / len(rows)
    parts = [_grid(top, y, words.count, WIDE)]
    every = max(1, math.ceil(len(rows) / 12))
    hover = []
    for index, (label, count) in enumerate(rows):
        left, last = _LEFT + index * width, mark_last and index == len(rows) - 1
        height = y(0.0) - y(count)
        parts.append(
            f'<rect class="bar{" over" if last else ""}" x="{left + 1:.1f}" y="{y(count):.1f}"'
            f' width="{width - 2:.1f}" height="{height:.1f}" rx="2"/>'
        )
        if last or (index % every == every - 1 and index + every / 2 < len(rows)):
            parts.append(_text(left + width / 2, HEIGHT - 16, "middle", label))
        hover.append([round(left + width / 2, 1), round(y(count), 1), label, words.count(count)])
    parts.append(_axis_label(x_label, WIDE))
    return _svg(
        "".join(parts), x_label, x_label, [{"label": "documents", "style": "a", "points": hover}], WIDE
    )


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round values that enclose [low, high]: steps of 1, 2, 2.5 or 5 times a power of ten."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """The values 1, 2 and 5 times a power of ten that enclose [low, high], both above 0; over more than three
    powers the powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    below = [value for value in values if value <= low * (1 + 1e-9)]
    above = [value for value in values if value >= high * (1 - 1e-9)]
    return [value for value in values if below[-1] <= value <= above[0]]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Each value averaged with its neighbours, about 3 % of the points to either side: centred, so that the
    curve does not lag behind. At the ends the window shrinks on both sides alike."""
    reach = max(2, len(points) // 33)
    sums = [0.0, *itertools.accumulate(y for _, y in points)]
    result = []
    for index, (x, _) in enumerate(points):
        half = min(reach, index, len(points) - 1 - index)
        result.append((x, (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)))
    return result


def thinned(points: Sequence[Point], limit: int = _POINTS_DRAWN) -> Sequence[Point]:
    """At most about `limit` points that keep every peak: of each bucket the lowest and the highest."""
    if len(points) <= limit:
        return points
    size = math.ceil(len(points) / (limit / 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _finite(line: Series) -> Series:
    points = [(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
    return Series(line.label, points, line.style, line.dots, line.smooth)


def _path(points: Sequence[Point], x: Scale, y: Scale, style: str) -> str:
    steps = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    return f'<polyline class="{style}" points="{steps}"/>'


def _grid(values: Sequence[float], y: Scale, describe: Callable[[float], str], width: float = WIDTH) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        + _text(_LEFT - 8, y(value) + 4, "end", describe(value))
        for value in values
    )


def _x_axis(low: float, high: float, x: Scale, label: str) -> str:
    values = [value for value in ticks(low, high, 6) if low <= value <= high]
    if all(float(value).is_integer() for value in (low, high)):
        values = [value for value in values if float(value).is_integer()]
    marks = "".join(_text(x(value), HEIGHT - 16, "middle", words.number(value)) for value in values)
    return marks + _axis_label(label)


def _axis_label(label: str, width: float = WIDTH) -> str:
    return _text(width - _RIGHT, HEIGHT - 2, "end", label)


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(body: str, title: str, x_label: str, hover: Sequence[object], width: float = WIDTH) -> Markup:
    data = escape(json.dumps({"x": x_label, "series": hover}, separators=(",", ":")))
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}" data-points="{data}">'
        f'{body}<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/></svg>'
    )
