import itertools

import pytest

from models.engines.progress import format_duration, reporting_to
from models.heads import fit_progress
from models.heads.fit_progress import FitProgress
from models.heads.fitting import fit_seeds
from models.recipes.registry import find_recipe
from tests.models.heads.test_fitting import learnable


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock takes ten seconds."""
    times = itertools.count(0.0, 10.0)
    monkeypatch.setattr(fit_progress.time, "monotonic", lambda: next(times))


def test_a_fit_reports_seed_epoch_rate_and_time_left(clock):
    lines = []
    recipe = find_recipe("default").variant("expr").replace(seeds=2, epochs=3, batch_size=500)
    with reporting_to(lines.append):
        fit_seeds(learnable(1000, seed=0), learnable(200, seed=1), task="expr", recipe=recipe)
    assert lines[0] == "measuring the inputs: 0 of 1,000 rows"
    lines = [line for line in lines if "epoch" in line]
    assert len(lines) == 2 * 3 * 2
    assert lines[0].startswith("seed 1 of 2, epoch 1 of at most 3, ") and "left" not in lines[0]
    assert lines[-1].startswith("seed 2 of 2, epoch 3 of at most 3, ")
    assert " rows/s, at most " in lines[-1] and lines[-1].endswith(" left")


def test_time_left_covers_the_remaining_epochs_parts_and_seeds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(fit_progress.time, "monotonic", lambda: now[0])
    recipe = find_recipe("default").variant("mtl").replace(epochs=4, seeds=2)
    progress = FitProgress(recipe)

    def fit(seed, number, *, epochs, seconds):
        progress.start_part(seed, number, recipe.parts[number])
        for _ in range(epochs):
            now[0] += seconds
            progress.add_rows(1000)
            progress.end_epoch()

    fit(0, 0, epochs=2, seconds=10)
    branch = recipe.parts[0].branches[0]
    # Two epochs of this part, and four of each of the other five: 22 x 10 s.
    assert str(progress) == f"{branch}, seed 1 of 2, epoch 3 of at most 4, 100 rows/s, at most 4 min left"
    # The part ended early after 20 s. With the other seed, it is expected to take 20 s again.
    progress.end_part()
    fit(0, 1, epochs=1, seconds=5)
    assert str(progress).endswith("epoch 2 of at most 4, 200 rows/s, at most 95 s left")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_published_recipes_stop_at_no_earlier_epoch(clock):
    lines = []
    recipe = find_recipe("paper").variant("va").replace(epochs=2, batch_size=500)
    with reporting_to(lines.append):
        fit_seeds(learnable(1000, seed=0), learnable(200, seed=1), task="va", recipe=recipe)
    assert lines[-1].startswith("epoch 2 of 2, ") and ", about " in lines[-1]
