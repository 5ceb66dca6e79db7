"""Charts of pages: Bokeh figures that are legible in light and in dark mode, on narrow screens and in print.

Backgrounds are transparent, and the colours of axes, grids, titles and legends are variables of ``page.css``, which
Bokeh reads whenever it paints. ``page.js`` paints again when the colour scheme changes.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.decisions.evaluation import Interval

if TYPE_CHECKING:
    from bokeh.models import LayoutDOM
    from bokeh.plotting import figure

# Okabe and Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/: colours that are told apart with
# every kind of colour vision. Orange, sky blue and reddish purple are darkened here, so that every colour has a
# contrast of at least 3:1 on light and on dark ground; a grey and a violet replace yellow and black, which lack it.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#c2659a", "#b07d00", "#3396d0", "#7a8290", "#9a6bc4")
_HEIGHT_PX = 280
# Squares of a density chart on each side.
_SQUARES = 40
_numbers = count(1)
# Space of a category with one series, for each further series, and for the axis.
_CATEGORY_PX, _SERIES_PX, _AXIS_PX = 18, 9, 60


class Line(NamedTuple):
    """A line of a chart: its name, its points, and whether the points are marked."""

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str
    is_dashed: bool = False
    is_marked: bool = False
    is_in_legend: bool = True


class Point(NamedTuple):
    """A value of a category and series, with its interval, if it has one."""

    category: str
    series: str
    interval: Interval


@dataclass(frozen=True)
class Chart:
    """A chart of a page.

    Attributes:
        caption: what it shows.
        description: what a reader who does not see it needs to know; screen readers read it.
        figure: a Bokeh model.
        legend: name and colour of each series, and whether its line is dashed. It is text of the page, so it wraps
            on narrow screens.
        notes: lines below it.
    """

    caption: str
    description: str
    figure: "LayoutDOM"
    legend: Sequence[tuple[str, str, bool]] = ()
    notes: Sequence[str] = ()
    target: str = field(default_factory=lambda: f"chart-{next(_numbers)}")


def new_figure(*, x_label: str, y_label: str, height_px: int = _HEIGHT_PX, **options: Any) -> "figure":
    """Return an empty figure in the style of the pages; ``options``: of ``bokeh.plotting.figure``."""
    from bokeh.plotting import figure

    plot = figure(
        height=height_px,
        sizing_mode="stretch_width",
        x_axis_label=x_label,
        y_axis_label=y_label,
        toolbar_location=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border_right=12,
        **({"tools": ""} | options),
    )
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
    plot.xgrid.visible = False
    return plot


def interval_chart(
    caption: str, points: Sequence[Point], *, value_label: str, description: str, zero_line: bool = False
) -> Chart:
    """Return a chart of values with their intervals: a line per category, a colour per series.

    ``zero_line``: mark zero, for differences.
    """
    from bokeh.models import FactorRange, HoverTool, Scatter, Segment

    categories = list(dict.fromkeys(one.category for one in points))
    series = list(dict.fromkeys(one.series for one in points))
    # Categories are drawn from the bottom to the top.
    plot = new_figure(
        x_label=value_label,
        y_label="",
        height_px=_AXIS_PX + len(categories) * (_CATEGORY_PX + _SERIES_PX * (len(series) - 1)),
        y_range=FactorRange(factors=categories[::-1], range_padding=0.3, range_padding_units="absolute"),
    )
    plot.xgrid.visible, plot.ygrid.visible = True, False
    if zero_line:
        plot.vspan(x=[0], line_color=PALETTE[6], line_width=1.5)
    for number, name in enumerate(series):
        shift = 0.0 if len(series) == 1 else 0.22 - 0.44 * number / (len(series) - 1)
        own = [one for one in points if one.series == name]
        values = [one.interval for one in own]
        data = {
            "y": [(one.category, shift) for one in own],
            "category": [one.category for one in own],
            "series": [name] * len(own),
            "value": [one.value for one in values],
            "low": [one.value if one.low is None else one.low for one in values],
            "high": [one.value if one.high is None else one.high for one in values],
        }
        colour = PALETTE[number % len(PALETTE)]
        source = _source(data)
        # add_glyph: methods such as plot.segment also make models for selected, unselected and muted data.
        plot.add_glyph(source, Segment(x0="low", y0="y", x1="high", y1="y", line_color=colour, line_width=2))
        marker = _MARKERS[number % len(_MARKERS)]
        dots = plot.add_glyph(
            source, Scatter(x="value", y="y", size=8, fill_color=colour, line_color=colour, marker=marker)
        )
        interval = ["interval: @low{0.000} to @high{0.000}"] if any(one.low is not None for one in values) else []
        lines = ["@category", "@series", f"{value_label}: @value{{0.000}}", *interval]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=_tooltip(lines)))
    legend = [(name, PALETTE[at % len(PALETTE)], False) for at, name in enumerate(series)]
    return Chart(caption, description, plot, legend if len(series) > 1 else ())


_MARKERS = ("circle", "diamond", "square", "triangle", "inverted_triangle", "plus", "star", "hex")


def line_chart(
    caption: str, lines: Sequence[Line], *, x_label: str, y_label: str, description: str, **options: Any
) -> Chart:
    """Return a chart of lines; ``options``: of ``new_figure``."""
    from bokeh.models import HoverTool, Scatter
    from bokeh.models import Line as LineGlyph

    plot = new_figure(x_label=x_label, y_label=y_label, **options)
    hovered: list[Any] = []
    for line in lines:
        source = _source(
            {"x": np.asarray(line.x, float), "y": np.asarray(line.y, float), "name": [line.name] * len(line.x)}
        )
        dash = [6, 3] if line.is_dashed else []
        shown: Any = plot.add_glyph(
            source, LineGlyph(x="x", y="y", line_color=line.colour, line_width=2, line_dash=dash)
        )
        if line.is_marked or len(line.x) == 1:
            dots = Scatter(x="x", y="y", size=7, fill_color=line.colour, line_color=line.colour)
            shown = plot.add_glyph(source, dots)
        hovered.append(shown)
    lines_shown = ["@name", f"{x_label}: @x{{0.[000]}}", f"{y_label}: @y{{0.000}}"]
    plot.add_tools(HoverTool(renderers=hovered, tooltips=_tooltip(lines_shown), line_policy="nearest"))
    legend = [(one.name, one.colour, one.is_dashed) for one in lines if one.is_in_legend]
    return Chart(caption, description, plot, list(dict.fromkeys(legend)) if len(lines) > 1 else ())


def density_chart(caption: str, x: np.ndarray, y: np.ndarray, *, x_label: str, y_label: str, description: str) -> Chart:
    """Return a chart of how many of the points x [n], y [n] in -1..1 are in each square; the diagonal is marked."""
    from bokeh.models import HoverTool

    counts, _, _ = np.histogram2d(x, y, bins=_SQUARES, range=[[-1, 1], [-1, 1]])
    column, row = np.nonzero(counts)
    filled = counts[column, row]
    width = 2 / _SQUARES
    plot = new_figure(x_label=x_label, y_label=y_label, height_px=320, x_range=(-1, 1), y_range=(-1, 1))
    data = {
        "x": (-1 + (column + 0.5) * width).round(4),
        "y": (-1 + (row + 0.5) * width).round(4),
        "rows": filled.astype(np.int32),
        # The root shows rare values, too.
        "alpha": (0.12 + 0.88 * np.sqrt(filled / filled.max() if len(filled) else filled)).round(3),
    }
    squares = plot.rect(
        "x", "y", width, width, source=_source(data), fill_color=PALETTE[0], fill_alpha="alpha", line_color=None
    )
    plot.line([-1, 1], [-1, 1], line_color=PALETTE[1], line_width=1.5, line_dash=[6, 3])
    lines = [f"{x_label}: @x{{0.00}}", f"{y_label}: @y{{0.00}}", "rows: @rows{0,0}"]
    plot.add_tools(HoverTool(renderers=[squares], tooltips=_tooltip(lines)))
    return Chart(caption, description, plot)


def _tooltip(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return a tooltip of lines with Bokeh's ``@column`` fields. Labels of their own would be pale blue on white."""
    return [("", line) for line in lines]


def _source(data: Mapping[str, Any]) -> Any:
    from bokeh.models import ColumnDataSource

    return ColumnDataSource(data=dict(data))


@functools.cache
def bokeh_script() -> str:
    """Return the JavaScript of Bokeh without its widgets, tables and formulas, about 1.3 MB."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw)


def to_items(charts: Iterable[Chart]) -> list[Mapping[str, Any]]:
    """Return what ``Bokeh.embed.embed_item`` takes, for each chart."""
    from bokeh.core.types import ID
    from bokeh.embed import json_item

    return [json_item(chart.figure, ID(chart.target)) for chart in charts]
