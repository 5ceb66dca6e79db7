"""Draw the predictions of a person over time, as a picture for notebooks."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS, BranchName
from tasks.palette import EXPRESSION_COLOURS

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Okabe and Ito, as the colours of expressions.
_DIMENSION_COLOURS = dict(zip(DIMENSIONS, ("#0072b2", "#d55e00"), strict=True))
_DPI = 100
_WIDTH_INCHES = 9.5
_PANEL_INCHES = {"va": 1.7, "expr": 1.7, "au": 2.4}
_NO_FACE_COLOUR = "#999999"


class Timeline:
    """A picture that notebooks show. ``figure`` is matplotlib's, to change or save it."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure

    def save(self, path: str | Path) -> None:
        """Write the picture to a file; the suffix determines the format: ``.png``, ``.pdf``, ``.svg``."""
        self.figure.savefig(path, dpi=2 * _DPI)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        # Twice the pixels of its size on the page, for screens of high resolution.
        from PIL import Image

        drawn, saved = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=2 * _DPI)
        # 256 colours are enough for flat ones, and keep notebooks small.
        Image.open(drawn).convert("RGB").quantize(256).save(saved, "PNG", optimize=True)
        width, height = self.figure.get_size_inches()
        return saved.getvalue(), {"width": round(width * _DPI), "height": round(height * _DPI)}

    def __repr__(self) -> str:
        titles = [axes.get_title(loc="left") for axes in self.figure.axes]
        return f"Timeline of {titles[0]}" if titles else "Timeline"


def draw_timeline(table: "pa.Table", *, title: str, labels: Mapping[BranchName, "pa.Table"]) -> Timeline:
    """Draw the predictions of one person.

    Args:
        table: rows of predictions, a row per frame.
        labels: rows of annotations by branch, drawn beside the predictions.

    Returns:
        A panel for each task that has predictions: valence and arousal as lines, the probability of each expression as
        bands with the decisions below, and of each action unit as a heat map. Frames without a face are shaded.
    """
    from matplotlib.figure import Figure

    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    drawn: list[BranchName] = [branch for branch, name in _FIRST_COLUMN.items() if _has_values(table, name)]
    heights = [_PANEL_INCHES[branch] for branch in drawn] or [1.0]
    figure = Figure(figsize=(_WIDTH_INCHES, sum(heights) + 0.9), layout="constrained", dpi=_DPI)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    seconds, unit = _times(columns)
    for branch, axes in zip(drawn, panels, strict=False):
        {"va": _draw_va, "expr": _draw_expr, "au": _draw_au}[branch](axes, columns, seconds, labels.get(branch))
        _shade_faceless(axes, columns, seconds)
    if not drawn:
        panels[0].text(
            0.5, 0.5, "no predictions: no task has a head, or no frame shows a face", ha="center", va="center"
        )
        panels[0].set_yticks([])
    panels[0].set_title(title, loc="left", fontsize=11)
    panels[-1].set_xlabel(unit, fontsize=9)
    panels[-1].set_xlim(seconds[0], max(seconds[-1], seconds[0] + 1e-3))
    for axes in panels:
        axes.tick_params(labelsize=8)
    return Timeline(figure)


_FIRST_COLUMN: dict[BranchName, str] = {"va": "valence", "expr": "p_neutral", "au": "p_au1"}


def _has_values(table: "pa.Table", name: str) -> bool:
    return name in table.column_names and table[name].null_count < len(table)


def _times(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, str]:
    seconds = columns["time_seconds"].astype(float)
    return (seconds, "seconds") if np.isfinite(seconds).all() else (columns["frame"].astype(float), "frame")


def _matching(labels: "pa.Table | None", name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the labels of the drawn frames, float [T], NaN without one; None without any."""
    if labels is None:
        return None
    of_frame = dict(zip(labels["frame"].to_pylist(), labels[name].to_pylist(), strict=True))
    values = [of_frame.get(int(frame)) for frame in columns["frame"]]
    return np.array([np.nan if value is None else value for value in values], float)


def _draw_va(axes: "Axes", columns: Mapping[str, np.ndarray], seconds: np.ndarray, labels: "pa.Table | None") -> None:
    for name, colour in _DIMENSION_COLOURS.items():
        axes.plot(seconds, columns[name].astype(float), color=colour, linewidth=1.4, label=name)
        truth = _matching(labels, name, columns)
        if truth is not None:
            axes.plot(seconds, truth, color=colour, linewidth=1.2, linestyle=":", label=f"{name}, label")
    axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    axes.set_ylim(-1.05, 1.05)
    _put_legend(axes)


def _draw_expr(axes: "Axes", columns: Mapping[str, np.ndarray], seconds: np.ndarray, labels: "pa.Table | None") -> None:
    values = np.stack([columns[f"p_{name.lower()}"].astype(float) for name in EXPRESSIONS])
    axes.stackplot(seconds, np.nan_to_num(values), colors=list(EXPRESSION_COLOURS.values()), labels=EXPRESSIONS)
    decided = columns["expression"]
    rows = [np.array([EXPRESSIONS.index(one) if one in EXPRESSIONS else np.nan for one in decided], float)]
    names = ["decided"]
    truth = _matching(labels, "expression", columns)
    if truth is not None:
        rows.append(truth)
        names.append("label")
    from matplotlib.colors import ListedColormap

    for number, row in enumerate(rows):
        bottom = -0.14 * (number + 1)
        axes.pcolormesh(
            _edges(seconds),
            [bottom - 0.1, bottom],
            np.ma.masked_invalid(row)[None],
            cmap=ListedColormap(list(EXPRESSION_COLOURS.values())),
            vmin=-0.5,
            vmax=len(EXPRESSIONS) - 0.5,
            rasterized=True,
        )
    axes.set_ylim(-0.14 * len(rows) - 0.12, 1)
    ticks = [-0.14 * (number + 1) - 0.05 for number in range(len(rows))]
    axes.set_yticks([*ticks[::-1], 0, 0.5, 1], [*names[::-1], "0", "0.5", "1"])
    _put_legend(axes)


def _draw_au(axes: "Axes", columns: Mapping[str, np.ndarray], seconds: np.ndarray, labels: "pa.Table | None") -> None:
    values = np.stack([columns[f"p_{name.lower()}"].astype(float) for name in ACTION_UNITS])
    edges = np.arange(len(ACTION_UNITS) + 1) - 0.5
    shown = np.ma.masked_invalid(values)
    mesh = axes.pcolormesh(_edges(seconds), edges, shown, cmap="cividis", vmin=0, vmax=1, rasterized=True)
    for number, name in enumerate(ACTION_UNITS):
        truth = _matching(labels, name, columns)
        if truth is not None:
            active = np.where(truth == 1, number + 0.42, np.nan)
            axes.plot(seconds, active, color="white", linewidth=2.2, solid_capstyle="butt")
    axes.set_yticks(range(len(ACTION_UNITS)), ACTION_UNITS)
    axes.set_ylim(edges[-1], edges[0])
    # Beside the panel, like the legends of the others.
    bar = axes.figure.colorbar(mesh, cax=axes.inset_axes((1.015, 0.1, 0.015, 0.8)))
    bar.ax.tick_params(labelsize=8)
    bar.set_label("probability" + (" (white: labelled)" if labels is not None else ""), fontsize=8)


def _put_legend(axes: "Axes") -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), fontsize=8, frameon=False, handlelength=1.2)


def _edges(seconds: np.ndarray) -> np.ndarray:
    """Return the T + 1 edges between T times."""
    steps = np.diff(seconds)
    last = steps[-1] if len(steps) else 1.0
    return np.append(seconds, seconds[-1] + max(last, 1e-6))


def _shade_faceless(axes: "Axes", columns: Mapping[str, Any], seconds: np.ndarray) -> None:
    edges, has_face = _edges(seconds), columns["has_face"].astype(bool)
    changes = np.flatnonzero(np.diff(np.concatenate([[True], has_face, [True]]).astype(int)))
    for begin, end in zip(changes[::2], changes[1::2], strict=True):
        axes.axvspan(edges[begin], edges[end], color=_NO_FACE_COLOUR, alpha=0.35, linewidth=0, zorder=3)
