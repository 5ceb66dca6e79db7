import numpy as np
import pytest

from models.decisions.smoothing import SMOOTHERS, interpolate_missing, smooth

RANDOM = np.random.default_rng(0)


def test_directions_of_interpolation_by_hand():
    values, present = np.array([[0.0], [9], [9], [3]]), np.array([True, False, False, True])
    assert interpolate_missing(values, present)[:, 0].tolist() == [0, 1, 2, 3]
    assert interpolate_missing(values, present, direction="published")[:, 0].tolist() == [0, 2, 1, 3]


def test_interpolation_at_the_ends_and_without_any_face():
    values, present = np.array([[9.0], [1], [9]]), np.array([False, True, False])
    assert interpolate_missing(values, present)[:, 0].tolist() == [1, 1, 1]
    assert np.isnan(interpolate_missing(values, np.zeros(3, bool))).all()
    with pytest.raises(ValueError, match="one flag for each"):
        interpolate_missing(values, np.ones(2, bool))


def slow_gaussian(window, offsets, sigma):
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return (window * weights[:, None]).sum(axis=0) / weights.sum()


@pytest.mark.parametrize("half_width", [1, 2, 7, 60])
@pytest.mark.parametrize("count", [1, 2, 6, 101])
def test_gaussian_windows_are_cut_at_the_ends(count, half_width):
    values = RANDOM.random((count, 2)).astype("f4")
    rows = [np.arange(max(0, t - half_width), min(count, t + half_width + 1)) for t in range(count)]
    expected = [slow_gaussian(values[r], r - t, half_width / 2) for t, r in enumerate(rows)]
    got = smooth(values, method="gaussian", half_width_frames=half_width)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-6)


def test_no_smoothing_and_wrong_arguments():
    values = RANDOM.random((5, 1)).astype("f4")
    assert (smooth(values, method="none", half_width_frames=3) == values).all()
    assert (smooth(values, method="mean") == values).all()
    with pytest.raises(ValueError, match="at least 0"):
        smooth(values, method="mean", half_width_frames=-1)
    with pytest.raises(ValueError, match="expected one of none, mean"):
        smooth(values, method="box", half_width_frames=2)
    values[3] = np.nan
    for method in SMOOTHERS:
        with pytest.raises(ValueError, match="every frame"):
            smooth(values, method=method, half_width_frames=2)


def medians_of_windows(values, half_width):
    windows = [values[max(0, t - half_width) : t + half_width + 1] for t in range(len(values))]
    return np.stack([np.median(window, axis=0) for window in windows])


@pytest.mark.parametrize("half_width", [1, 2, 3, 7, 8, 15, 40, 80])
@pytest.mark.parametrize("count", [2, 3, 4, 9, 31, 100, 2600])
def test_medians_equal_numpy_exactly(count, half_width):
    spread = RANDOM.normal(size=(count, 3)).astype("f4")
    ties = RANDOM.integers(-2, 3, (count, 3)).astype("f4")
    steps = np.repeat(spread[: (count + 4) // 5], 5, axis=0)[:count]
    for values in (spread, ties, steps, -np.sort(-spread, axis=0)):
        got = smooth(values, method="median", half_width_frames=half_width)
        assert (got == medians_of_windows(values, half_width)).all()


@pytest.mark.parametrize("half_width", [50, 51, 120, 500])
def test_wide_gaussians_equal_loops(half_width):
    values = RANDOM.random((700, 3)).astype("f4")
    rows = [np.arange(max(0, t - half_width), min(700, t + half_width + 1)) for t in range(700)]
    expected = np.stack([slow_gaussian(values[r].astype(float), r - t, half_width / 2) for t, r in enumerate(rows)])
    np.testing.assert_allclose(smooth(values, method="gaussian", half_width_frames=half_width), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["mean", "median", "gaussian"])
def test_a_subject_without_a_face_stays_nan(method):
    nobody = np.full((9, 2), np.nan, "f4")
    assert np.isnan(smooth(nobody, method=method, half_width_frames=3)).all()
