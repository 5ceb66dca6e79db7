"""Temporal heads against the perceptron of recipe ``default``: fitting an epoch, and predicting a long sequence.

Both sides fit or predict the same generated frames. A ratio of 0.5 is twice the time. ``measure_temporal`` measures
what temporal heads cost in ``score``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
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


if __name__ == "__main__":
    run_script(make_pairs)
