"""Charts of pages: Bokeh figures that are legible in light and in dark mode, on narrow screens and in print.

Backgrounds are transparent, and the colours of axes, grids, titles and legends are variables of ``page.css``, which
Bokeh reads whenever it paints. ``page.js`` paints again when the colour scheme changes.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bokeh.models import LayoutDOM
    from bokeh.plotting import figure

# Okabe and Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/: colours that are told apart with
# every kind of colour vision. Orange, sky blue and reddish purple are darkened here, so that every colour has a
# contrast of at least 3:1 on light and on dark ground; a grey and a violet replace yellow and black, which lack it.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#c2659a", "#b07d00", "#3396d0", "#7a8290", "#9a6bc4")
_HEIGHT_PX = 280
_numbers = count(1)


@dataclass(frozen=True)
class Chart:
    """A chart of a page.

    Attributes:
        caption: what it shows.
        description: what a reader who does not see it needs to know; screen readers read it.
        figure: a Bokeh model.
        legend: name and colour of each series. It is text of the page, so it wraps on narrow screens.
        notes: lines below it.
    """

    caption: str
    description: str
    figure: "LayoutDOM"
    legend: Sequence[tuple[str, str]] = ()
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
