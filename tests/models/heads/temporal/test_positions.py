"""The grid of positions in time."""

import numpy as np
import pytest

from models.heads.temporal.positions import Positions


@pytest.mark.parametrize("rate", [29.97, 30])
def test_frames_at_about_the_rate_are_positions(rate):
    positions = Positions.of(np.round(np.arange(2000) / rate, 3))
    assert positions.is_identity and len(positions) == 2000


@pytest.mark.parametrize("rate", [6.0, 15, 25, 60])
def test_other_rates_are_resampled_by_time(rate):
    seconds = np.arange(200) / rate
    positions = Positions.of(seconds)
    assert abs(len(positions) - 200 * 30 / rate) <= 30 / rate + 1
    # A frame is at most half a frame away in time, and a value that is linear in time stays so.
    grid = np.arange(len(positions)) / 30
    assert np.abs(seconds[positions.frames] - grid)[:-1].max() <= 0.5 / rate + 1e-9
    assert np.abs(positions.to_frames(grid[:, None])[:, 0] - seconds).max() < 1e-6


@pytest.mark.parametrize("seconds", [[0.0], [0.0, 0, 0], [5.0, 4, 90_000], [0.0, 1e-9, 0.1]])
def test_strange_times_give_a_short_grid_and_finite_values(seconds):
    positions = Positions.of(np.array(seconds))
    assert 1 <= len(positions) <= 62 and len(positions.at) == len(seconds)
    assert positions.frames.min() == 0 and positions.frames.max() < len(seconds)
    values = positions.to_frames(np.arange(len(positions), dtype=np.float32)[:, None])
    assert np.isfinite(values).all() and len(values) == len(seconds)
