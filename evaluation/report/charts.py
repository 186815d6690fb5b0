"""Drawings as SVG inside the page: curves with their names at their ends, and bars.

Colours are the page's (page.css), so that they change with it in the dark and in print; lines also differ in dashes and
markers, bars in their labels, for print without colour.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # there may be no screen
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.0  # inches: 288 units of the drawing, about the pixels of a small phone
_BAR_HEIGHT = 0.235  # inches, of a bar or a line of text between bars
_SHORT_LINE = 0.8  # of the width: a line that ends before has its name inside the axes
_LETTER = 0.02  # of the longest bar: a generous width of a letter
_INK, _FAINT = "#010101", "#020202"  # stand for the page's colours until the drawing is finished
_HUES = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
_VARIABLES = {_INK: "ink", _FAINT: "faint"} | {hue: f"hue{i}" for i, hue in enumerate(_HUES)}
_DASHES = ((0, ()), (0, (5, 1.6)), (0, (1.5, 1.4)), (0, (6, 1.5, 1.5, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": _FAINT,
    "grid.linewidth": 0.35,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.4,
}


@dataclass(frozen=True, kw_only=True)
class Fan:
    """Where a curve is expected to end: from its last point to a range at `x`."""

    x: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A named line; points whose y is not finite are gaps."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int
    """Number of its colour, dashes and marker."""
    has_markers: bool = False
    fan: Fan | None = None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A share of the teacher's."""

    name: str
    value: float
    style: int
    label: str


@dataclass(frozen=True, kw_only=True)
class BarGroup:
    """Bars under a heading."""

    heading: str
    bars: Sequence[Bar] = field(default_factory=tuple)


class _End(NamedTuple):
    """Of a line, where its name goes."""

    name: str
    x: float
    y: float
    colour: str


def curves(
    name: str,
    lines: Sequence[Curve],
    *,
    level: tuple[str, float] | None = None,
    is_logarithmic: bool = False,
    is_share: bool = False,
) -> str:
    """Lines over tokens; `level` is a horizontal one that all are measured by. `name` is unique in its page."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(WIDTH, 2.75))
        ends = []
        for line in lines:
            end = _draw(axes, line)
            if end:
                ends.append(end)
        if level and math.isfinite(level[1]):
            axes.axhline(level[1], color=_INK, linewidth=1.0, linestyle=(0, (8, 3)))
            ends.append(_End(level[0], math.inf, level[1], _INK))
        _dress(axes, is_logarithmic, is_share)
        _name_ends(axes, ends)
        return _finish(figure, name)


def bars(name: str, groups: Sequence[BarGroup], *, level: str) -> str:
    """Horizontal bars as shares of the teacher's, which are a line at 100%."""
    with matplotlib.rc_context(_STYLE):
        rows = sum(len(group.bars) + 1 for group in groups)
        height = _BAR_HEIGHT * (rows + 2.2)
        figure, axes = pyplot.subplots(figsize=(WIDTH, height))
        longest = max([1.0, *(bar.value for group in groups for bar in group.bars if math.isfinite(bar.value))])
        y = 0.0
        for group in groups:
            axes.text(0, y, group.heading, fontweight="bold", va="center", ha="left")
            for bar in group.bars:
                y += 1
                _draw_bar(axes, y, bar, longest)
            y += 1
        axes.plot([1, 1], [0.4, y - 0.4], color=_INK, linewidth=1.0, linestyle=(0, (8, 3)), zorder=3)
        axes.text(1, y, level, va="center", ha="center")
        axes.set(xlim=(0, longest * 1.18), ylim=(y + 0.6, -0.6))
        axes.axis("off")
        figure.subplots_adjust(left=0.01, right=0.99, top=1, bottom=0)
        return _finish(figure, name)


def _draw_bar(axes: "Axes", y: float, bar: Bar, longest: float) -> None:
    value = bar.value if math.isfinite(bar.value) else 0.0
    hue = _HUES[bar.style % len(_HUES)]
    axes.barh(y, max(value, 0.0), height=0.78, color=hue, edgecolor=_INK, linewidth=0.5, alpha=0.32)
    axes.text(0.012 * longest, y, bar.name, va="center", ha="left", fontsize=8.5)
    name_end = 0.012 * longest + len(bar.name) * _LETTER * longest
    if value > name_end + len(bar.label) * _LETTER * longest:
        axes.text(value - 0.015 * longest, y, bar.label, va="center", ha="right")
    else:
        axes.text(max(value, name_end) + 0.015 * longest, y, bar.label, va="center", ha="left")


def _draw(axes: "Axes", line: Curve) -> _End | None:
    """Returns where it ends; None where nothing is known of it."""
    colour, dashes = _HUES[line.style % len(_HUES)], _DASHES[line.style % len(_DASHES)]
    marker = _MARKERS[line.style % len(_MARKERS)] if line.has_markers else None
    axes.plot(line.x, line.y, marker=marker, color=colour, linestyle=dashes)
    known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not known:
        return None
    if line.fan:
        _draw_fan(axes, known[-1], line.fan, colour)
        return _End(line.name, line.fan.x, line.fan.middle, colour)
    return _End(line.name, *known[-1], colour)


def _draw_fan(axes: "Axes", last: tuple[float, float], fan: Fan, colour: str) -> None:
    (x, y), end = last, fan.x
    axes.fill([x, end, end], [y, fan.low, fan.high], color=colour, alpha=0.18, linewidth=0)
    axes.plot([x, end], [y, fan.middle], color=colour, linewidth=1.0, linestyle=(0, (2, 2)))
    axes.errorbar(
        [end], [fan.middle], [[fan.middle - fan.low], [fan.high - fan.middle]], color=colour, capsize=3, linewidth=1.0
    )


def _dress(axes: "Axes", is_logarithmic: bool, is_share: bool) -> None:
    axes.set_xlim(left=0)
    axes.margins(x=0.02)
    axes.set_xlabel("tokens trained on", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.grid(axis="y")
    if is_logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        # Within a power of ten or two its 1, 2 and 5 are too few ticks, or none.
        axes.yaxis.set_major_locator(MaxNLocator(4) if high < 10 * low else LogLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if is_share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}%"))


def _name_ends(axes: "Axes", ends: Sequence[_End]) -> None:
    """Names beside the ends of lines; those at the right edge pushed apart where they would overlap."""
    figure = axes.get_figure()
    assert figure is not None
    longest = max((len(_cut(end.name)) for end in ends), default=0)
    figure.subplots_adjust(left=0.125, right=0.97 - 0.0165 * longest, top=0.97, bottom=0.165)
    left, right = axes.get_xlim()
    inside = [end for end in ends if end.x < left + _SHORT_LINE * (right - left)]
    outside = [end for end in ends if end not in inside]
    for end in inside:
        axes.annotate(_cut(end.name), (end.x, end.y), (4, -3), textcoords="offset points", color=end.colour, va="top")
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((left, end.y))[1]) for end in outside]
    for end, height in zip(outside, spread(heights, 0.075), strict=True):
        axes.text(1.02, height, _cut(end.name), transform=axes.transAxes, color=end.colour, va="center", ha="left")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights moved as little as needed to be `gap` apart, in their order, within 0 and 1 where they fit."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = [heights[i] for i in order]
    for _ in range(60):
        for i in range(1, len(placed)):
            overlap = gap - (placed[i] - placed[i - 1])
            if overlap > 1e-9:
                placed[i - 1] -= overlap / 2
                placed[i] += overlap / 2
    if placed:
        placed = [height - max(0.0, placed[-1] - 1.0) for height in placed]
        placed = [height + max(0.0, -placed[0]) for height in placed]
    result = [0.0] * len(heights)
    for i, height in zip(order, placed, strict=True):
        result[i] = height
    return result


def short(count: float) -> str:
    """1,200,000 as 1.2M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def _cut(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def _finish(figure: "Figure", name: str) -> str:
    """SVG for the inside of a page: as wide as its place, in the page's colours, its ids no other drawing's."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    pyplot.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1
    )
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:)?href="#([^"]*)"', rf'href="#{name}-\2"', svg)
    svg = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
