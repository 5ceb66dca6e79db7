"""Temporal heads against the perceptron of recipe ``default``: fitting an epoch, predicting a long sequence, ``score``.

The ratios say what a temporal head costs: 0.5 is twice the time. Both sides fit or predict the same generated frames,
or score the same clip, with heads of three seeds that were fitted on the data of ``affwild2 demo``.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from clips import open_clips
from command_watch import watch
from generated_rows import WIDTH, make_rows
from pairs import Pair, run_script

from models.engines.precision import native_precision
from models.heads.fitting import FittedHead, fit_seeds
from models.heads.head import Head
from models.heads.recipes import TaskRecipe
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence
from models.recipes.registry import find_recipe

ROWS, SUBJECT_FRAMES = 60_000, 2_000
KINDS = ("tcn", "transformer")


def cut(rows: TrainingRows) -> list[SubjectSequence]:
    """Return the rows as subjects of a minute."""
    present, seconds = np.ones(len(rows), bool), np.arange(len(rows)) / 30
    whole = SubjectSequence(rows.embeddings, rows.logits, present, seconds, rows.labels)
    return [whole[first : first + SUBJECT_FRAMES] for first in range(0, len(rows), SUBJECT_FRAMES)]


def recipe_of(name: str) -> TaskRecipe:
    """Return the recipe for valence and arousal with one epoch of all rows, one seed, and the bare loss."""
    return find_recipe(name).variant("va").replace(seeds=1, epochs=1, epoch_rows=0, patience=0, l2=0.0)


def compare_fits(reference: FittedHead, ours: FittedHead) -> str:
    """Check that both fits ended with a loss near or below that of constant outputs, 1."""
    losses = [fitted.histories[0][0][0]["train_loss"] for fitted in (reference, ours)]
    assert max(losses) < 1.05, losses
    return "loss {:.3f} and {:.3f} in the epoch".format(*losses)


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield a fit and a prediction of each kind."""
    count = 6_000 if quick else ROWS
    train, validation = make_rows(count, seed=1), make_rows(SUBJECT_FRAMES, seed=2)
    sequences, checked = cut(train), cut(validation)
    whole = SubjectSequence(train.embeddings, train.logits, np.ones(count, bool), np.arange(count) / 30)

    def fit(name: str) -> FittedHead:
        data: tuple[Any, Any] = (train, validation) if name == "default" else (sequences, checked)
        return fit_seeds(*data, task="va", recipe=recipe_of(name), precision=native_precision())

    def predict(head: Head[Any]) -> np.ndarray:
        if head.works_on == "sequences":
            return head.predict_sequence(whole)["va"]
        parts = [whole[first : first + 1024] for first in range(0, count, 1024)]
        return np.concatenate([head.predict_sequence(part)["va"] for part in parts])

    def compare(reference: np.ndarray, ours: np.ndarray) -> str:
        assert reference.shape == ours.shape and np.isfinite(ours).all()
        return f"{len(ours):,} finite outputs"

    perceptron = fit("default").head
    for kind in KINDS:
        sizes = f"{count:,} x {WIDTH}"
        name = f"{kind}, one epoch of {sizes}, perceptron of default"
        yield Pair(name, lambda: fit("default"), lambda k=kind: fit(k), compare_fits, rounds=2, work=count, unit="rows")  # type: ignore
        head = fit(kind).head
        yield Pair(
            f"{kind}, prediction of {sizes}, perceptron of default",
            lambda: predict(perceptron),
            lambda h=head: predict(h),  # type: ignore
            compare,
            rounds=3,
            work=count,
            unit="frames",
        )
    if not quick:
        yield from score_pairs()


def affwild2(*arguments: object) -> float:
    """Run a command; return the processor seconds of all its processes."""
    program = str(Path(sys.executable).with_name("affwild2"))
    with tempfile.TemporaryDirectory() as temporary:
        done = watch([program, *map(str, arguments)], temporary=Path(temporary), environment=os.environ)
    if done.exit_code:
        raise RuntimeError(f"affwild2 {arguments[0]}: exit code {done.exit_code}: {done.output[-500:]}")
    return done.cpu_seconds


def score_clip(clip: Path, store: Path, head: str) -> tuple[float, int]:
    """Score a clip that the store does not know; return processor seconds and the number of rows with outputs."""
    with tempfile.TemporaryDirectory() as folder:
        copy, out = Path(folder, "store"), Path(folder, "out")
        shutil.copytree(store, copy)
        seconds = affwild2("score", clip, "--store", copy, "--head", head, "--out", out, "--workers", 2)
        (table,) = out.glob("*.csv")
        return seconds, len(table.read_text().splitlines()) - 1


def compare_scored(reference: tuple[float, int], ours: tuple[float, int]) -> str:
    """Check that both sides wrote the same number of rows."""
    assert reference[1] == ours[1] > 0, (reference, ours)
    return f"{ours[1]} rows; processor time {reference[0]:.1f} s and {ours[0]:.1f} s, {ours[0] / reference[0] - 1:+.1%}"


def score_pairs() -> Iterator[Pair]:
    """Yield ``score`` of a clip with each kind."""
    with open_clips(frames=472, small_only=True) as clips, tempfile.TemporaryDirectory() as folder:
        clip, demo = clips["one face, 360p"], Path(folder, "demo")
        affwild2("demo", "--out", demo)
        for kind in KINDS:
            affwild2("fit", "va", "--store", demo / "store", "--annotations", demo / "data", "--recipe", kind)
        for kind in KINDS:
            yield Pair(
                f"score of 472 frames with a {kind}, perceptron of default",
                lambda: score_clip(clip, demo / "store", "va-default"),
                lambda k=kind: score_clip(clip, demo / "store", f"va-{k}"),  # type: ignore[misc]
                compare_scored,
                goal=1 / 1.1,
                rounds=2,
                work=472,
                unit="frames",
            )


if __name__ == "__main__":
    run_script(make_pairs)
