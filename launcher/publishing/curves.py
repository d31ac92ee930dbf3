"""The training's curves as a picture that stands alone: an SVG file beside the card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from launcher.reporting import charts
from launcher.reporting.charts import Series

FILE = "training-loss.svg"
_SVG = "http://www.w3.org/2000/svg"
_COLOURS = {"a": "#1f6f9f", "b": "#c2571a"}
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#66717e}"
    ".grid{stroke:#e3e7eb}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".line.raw{stroke-width:1;opacity:.3}"
    + "".join(
        f".line.{name}{{stroke:{colour}}}.dot.{name},.key.{name}{{fill:{colour}}}"
        for name, colour in _COLOURS.items()
    )
)
_LEGEND_Y, _LEGEND_X, _LEGEND_STEP = 18, 380, 16  # pixels


def draw(steps: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> str | None:
    """Training and evaluation loss by step, with its own colours and background, and no script: pages show
    it as an image. None where there is nothing to draw."""
    lines = [
        Series("training", _points(steps, "loss"), "a", smooth=True),
        Series("evaluation", _points(evaluations, "eval_loss"), "b", dots=True),
    ]
    chart = charts.line_chart(lines, x_label="step")
    if chart is None:
        return None
    root = ElementTree.fromstring(re.sub(r' data-points="[^"]*"', "", str(chart)))
    for cursor in root.findall("line[@class='cursor']"):
        root.remove(cursor)
    root.set("xmlns", _SVG)
    root.set("width", str(charts.WIDTH))
    root.set("height", str(charts.HEIGHT))
    style = ElementTree.Element("style")
    style.text = _STYLE
    background = ElementTree.Element("rect", width="100%", height="100%", fill="#ffffff")
    root[:0] = [style, background]
    for index, line in enumerate(line for line in lines if line.points):
        y = _LEGEND_Y + index * _LEGEND_STEP
        key = {"class": f"key {line.style}", "x": str(_LEGEND_X), "y": str(y - 6)}
        ElementTree.SubElement(root, "rect", {**key, "width": "14", "height": "4"})
        text = ElementTree.SubElement(root, "text", {"x": str(_LEGEND_X + 20), "y": str(y)})
        text.text = f"{line.label} loss"
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
