"""Write the viewer of a video: its picture above, and below a timeline of what heads say about each person."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from data_contracts.store.contents import REPORT_PAGE, VIEWERS
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS, SIMULATED_NOTICE, SUBJECT_SIDES, BranchName
from tasks.pages.charts import PALETTE, Chart, new_figure
from tasks.pages.media import Media
from tasks.pages.page import read_text, render_page, to_json
from tasks.pages.thumbnails import TILE_PX, Strip
from tasks.pages.timeline import BranchValues, PersonTimeline, Timeline, Values
from tasks.palette import EXPRESSION_COLOURS

if TYPE_CHECKING:
    from bokeh.models import Range1d
    from bokeh.plotting import figure

_LABEL_COLOUR, _GAP_COLOUR = "#7a8290", "#808080"
_INACTIVE, _ACTIVE = PALETTE[0], PALETTE[1]
_LINE_HEIGHT_PX, _ROW_HEIGHT_PX, _MARGIN_LEFT_PX = 84, 15, 78
_AXIS_HEIGHT_PX = 40
_MOST_PEOPLE_HEIGHT_PX, _MOST_PEOPLE_NAMES = 260, 16
_NO_CLASS, _NO_VALUE, _NO_BITS = 255, -32768, 0xFFFF


def folder_of_viewer(video: str) -> str:
    """Return the folder of the viewer of a video, relative to the store."""
    return f"{VIEWERS}/{video}"


def write_viewer(
    store: Store,
    timeline: Timeline,
    *,
    strips: Mapping[int, Strip] | None,
    media: Media,
    fps: float,
    is_simulated: bool = False,
) -> str:
    """Write ``reports/viewers/VIDEO/index.html`` and return its path within the store.

    Args:
        strips: thumbnails of each person; None: a page without thumbnails.
        fps: frames per second, for videos whose times are unknown.

    Raises:
        StoreError: the store cannot be written to.
    """
    plots = _make_plots(timeline)
    chart = _chart_of(plots, timeline.video)
    data = {
        "frames": timeline.frame_count,
        "seconds": None if timeline.seconds is None else _encode(np.round(timeline.seconds * 1e4), np.uint32),
        "fps": fps,
        "offset": media.offset_seconds,
        "width": media.size_px[0],
        "height": media.size_px[1],
        "place": media.link or "",
        "tile": TILE_PX,
        "expressions": EXPRESSIONS,
        "units": ACTION_UNITS,
        "colours": {
            "expressions": [EXPRESSION_COLOURS[name] for name in EXPRESSIONS],
            "label": _LABEL_COLOUR,
            "gap": _GAP_COLOUR,
            "inactive": _INACTIVE,
            "active": _ACTIVE,
        },
        "persons": [_person_data(one, (strips or {}).get(one.number)) for one in timeline.persons],
    }
    page = render_page(
        "viewer.html.jinja",
        title=timeline.video,
        simulated=SIMULATED_NOTICE if is_simulated else None,
        charts=[chart],
        scripts=[read_text("viewer.js")],
        policy="media-src 'self' file:",
        viewer_style=Markup(read_text("viewer.css")),
        about=_describe(timeline),
        lines=[timeline.source, *timeline.settings],
        media=media,
        with_thumbnails=bool(strips),
        persons=len(timeline.persons),
        chart=chart,
        height_px=sum(plot.height or 0 for plot in plots),
        frame_count=timeline.frame_count,
        legend=_legend_of(timeline),
        data=Markup(to_json(data)),
    )
    path = f"{folder_of_viewer(timeline.video)}/{REPORT_PAGE}"
    store.write_bytes(path, page.encode())
    return path


def _describe(timeline: Timeline) -> str:
    seconds = "" if timeline.seconds is None else f", {timeline.seconds[-1]:,.1f} s"
    persons = f"{len(timeline.persons)} person{'s' if len(timeline.persons) != 1 else ''}"
    return f"{timeline.frame_count:,} frames{seconds}, {persons}"


# -- charts ------------------------------------------------------------------------------------------------------------


def _has(timeline: Timeline, branch: BranchName) -> bool:
    return any(branch in one.smoothed or branch in one.labels for one in timeline.persons)


def _make_plots(timeline: Timeline) -> "list[figure]":
    """Return the charts from top to bottom, without data: the script of the page fills in what is visible."""
    from bokeh.models import Range1d

    first, last = 0.5, timeline.frame_count + 0.5
    frames = Range1d(start=first, end=last, bounds=(first, last), min_interval=min(10, timeline.frame_count))
    plots = []
    if len(timeline.persons) > 1:
        plots.append(_people_plot(frames, timeline.persons))
    if _has(timeline, "va"):
        plots += [_line_plot(frames, name, PALETTE[n]) for n, name in enumerate(DIMENSIONS)]
    if _has(timeline, "expr"):
        plots.append(_rows_plot(frames, "expression", EXPRESSIONS))
    if _has(timeline, "au"):
        plots.append(_rows_plot(frames, "units", ACTION_UNITS))
    for plot in plots[:-1]:
        plot.xaxis.visible = False
    plots[-1].xaxis.axis_label = "frame"
    plots[-1].height = (plots[-1].height or 0) + _AXIS_HEIGHT_PX
    return plots


def _new_plot(frames: "Range1d", name: str, *, height_px: int, y_range: tuple[float, float]) -> "figure":
    from bokeh.models import ColumnDataSource, NumeralTickFormatter, PanTool, WheelZoomTool

    wheel = WheelZoomTool(dimensions="width", modifiers={"ctrl": True})
    plot = new_figure(
        x_label="",
        y_label="",
        height_px=height_px,
        name=name,
        x_range=frames,
        y_range=y_range,
        tools=[PanTool(dimensions="width"), wheel],
        active_scroll=wheel,
        min_border_left=_MARGIN_LEFT_PX,
        min_border_top=4,
        min_border_bottom=4,
    )
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.ygrid.visible = False
    # The script makes its pictures of the type of this one.
    picture = {"image": [np.zeros((1, 1), np.uint32)], "x": [0], "y": [0], "dw": [1], "dh": [1]}
    source = ColumnDataSource(picture, name=f"{name}-picture")
    plot.image_rgba("image", "x", "y", "dw", "dh", source=source)
    return plot


def _line_plot(frames: "Range1d", name: str, colour: str) -> "figure":
    from bokeh.models import ColumnDataSource, FixedTicker

    plot = _new_plot(frames, name, height_px=_LINE_HEIGHT_PX, y_range=(-1.2, 1.2))
    plot.yaxis.ticker = FixedTicker(ticks=[-1, 0, 1])
    plot.yaxis.axis_label = name
    plot.ygrid.visible, plot.ygrid.ticker = True, FixedTicker(ticks=[0])
    for kind, line_colour, width in (("labels", _LABEL_COLOUR, 2.5), ("lines", colour, 1.5)):
        source = ColumnDataSource({"x": np.zeros(0), "y": np.zeros(0)}, name=f"{name}-{kind}")
        plot.line("x", "y", source=source, line_color=line_colour, line_width=width)
    return plot


def _rows_plot(frames: "Range1d", name: str, names: Sequence[str]) -> "figure":
    count = len(names)
    plot = _new_plot(frames, name, height_px=_ROW_HEIGHT_PX * count + 8, y_range=(0, count))
    _label_rows(plot, {count - 0.5 - row: text for row, text in enumerate(names)})
    return plot


def _people_plot(frames: "Range1d", persons: Sequence[PersonTimeline]) -> "figure":
    count = len(persons)
    height_px = min(_ROW_HEIGHT_PX * count, _MOST_PEOPLE_HEIGHT_PX) + 8
    plot = _new_plot(frames, "people", height_px=height_px, y_range=(0, count))
    every = -(-count // _MOST_PEOPLE_NAMES)
    _label_rows(plot, {count - 0.5 - row: one.name for row, one in enumerate(persons) if row % every == 0})
    return plot


def _label_rows(plot: "figure", names: Mapping[float, str]) -> None:
    from bokeh.models import FixedTicker

    plot.yaxis.ticker = FixedTicker(ticks=sorted(names))
    plot.yaxis.major_label_overrides = {place: text for place, text in names.items()}
    plot.yaxis.major_tick_line_color = None


def _chart_of(plots: "Sequence[figure]", video: str) -> Chart:
    from bokeh.layouts import column

    description = f"Timeline of {video}: what the heads say about the chosen person in each frame"
    return Chart("Timeline", description, column(*plots, sizing_mode="stretch_width", spacing=0))


@dataclass(frozen=True)
class _Key:
    colour: str
    text: str


def _legend_of(timeline: Timeline) -> list[_Key]:
    keys = []
    if _has(timeline, "au"):
        keys += [_Key(_ACTIVE, "active unit"), _Key(_INACTIVE, "inactive unit; the paler, the less probable")]
    if any(one.labels for one in timeline.persons):
        keys.append(_Key(_LABEL_COLOUR, "label (annotation)"))
    if any(not one.has_face.all() for one in timeline.persons):
        keys.append(_Key(f"{_GAP_COLOUR}55", "no face"))
    return keys


# -- data --------------------------------------------------------------------------------------------------------------


def _person_data(person: PersonTimeline, strip: Strip | None) -> dict[str, Any]:
    count = len(person.has_face)
    seen, last = int(person.has_face.sum()), person.first_frame + count - 1
    short = ", short" if person.is_short else ""
    side = f", {person.subject}" if person.subject and person.subject.endswith(SUBJECT_SIDES) else ""
    return {
        "number": person.number,
        "name": person.name,
        "title": f"{person.number}: frames {person.first_frame} to {last}, {seen / count:.0%} seen{short}{side}",
        "first": person.first_frame,
        "seen": _encode(person.has_face, np.uint8),
        "boxes": _encode(_without_nan(np.round(person.boxes_px).clip(-32767, 32767), _NO_VALUE), np.int16),
        "smoothed": _values_data(person.smoothed),
        "raw": _values_data({**person.smoothed, **person.raw}) if person.raw else None,
        "labels": _values_data(person.labels),
        "strip": strip and {"frames": list(strip.frames), "image": _data_uri(strip.jpeg)},
    }


def _values_data(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if va := values.get("va"):
        scaled = np.round(va.decisions.clip(-1, 1) * 32767)
        found["va"] = [_encode(_without_nan(scaled[:, i], _NO_VALUE), np.int16) for i in range(2)]
    if expr := values.get("expr"):
        found["expr"] = {
            "decided": _encode(_without_nan(expr.decisions[:, 0], _NO_CLASS), np.uint8),
            "p": _shares(expr),
        }
    if au := values.get("au"):
        bits = (np.nan_to_num(au.decisions) > 0).astype(np.uint16) @ (
            1 << np.arange(len(ACTION_UNITS), dtype=np.uint16)
        )
        bits = np.where(np.isnan(au.decisions).all(axis=1), _NO_BITS, bits)
        found["au"] = {"decided": _encode(bits, np.uint16), "p": _shares(au)}
    return found


def _shares(values: BranchValues) -> str | None:
    """Return probabilities in steps of 1/255, column after column."""
    if values.probabilities is None:
        return None
    return _encode(np.round(np.nan_to_num(values.probabilities).clip(0, 1) * 255).T, np.uint8)


def _without_nan(values: NDArray[Any], replacement: int) -> NDArray[Any]:
    return np.where(np.isnan(values), replacement, values)


def _encode(values: NDArray[Any], kind: type[np.generic]) -> str:
    """Return values as base64 of their little-endian bytes, as the typed arrays of JavaScript read them."""
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
