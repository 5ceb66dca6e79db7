"""A picture of how a training went: loss and figures over epochs."""

from collections.abc import Sequence
from typing import IO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_FIGURES = ("accuracy", "balanced_accuracy", "mean_ccc")


def draw_curves(history: Sequence[dict[str, float]], file: IO[bytes]) -> None:
    """Write a PNG: training loss on the left, figures on the validation pictures on the right.

    ``history``: per epoch ``epoch``, ``train_loss`` and any of the figures.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, figures = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    loss.plot(epochs, [entry["train_loss"] for entry in history], marker="o", color="tab:blue")
    loss.set(title="Training loss", xlabel="epoch", ylabel="loss")
    for name in _FIGURES:
        points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
        if points:
            figures.plot(*zip(*points, strict=True), marker="o", label=name.replace("_", " "))
    figures.set(title="Validation", xlabel="epoch", ylim=(0, 1))
    if figures.lines:
        figures.legend(loc="lower right")
    for axes in (loss, figures):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(file, format="png", dpi=110)
