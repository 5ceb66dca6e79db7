"""Times of frames: unknown times, restarts, and steps."""

import pytest

from data_contracts.video.timing import complete


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 10, None, 30], [0, 10, 20, 30]),
        ([None, 10, 20, 30], [0, 10, 20, 30]),
        ([5, None, None, None], [5, 45, 85, 125]),
        # As in program streams, which state the times of some frames only.
        ([0, None, None, 120, None, None, 240, None], [0, 40, 80, 120, 160, 200, 240, 280]),
        ([0, 40, 80, 0, 40], [0, 40, 80, 120, 160]),
        ([0, 40, 80, -4000, -3960], [0, 40, 80, 120, 160]),
    ],
)
def test_unknown_times_are_a_step_after_the_last(times, expected):
    found = complete(times, usual_step=40)
    assert found is not None and found.tolist() == expected


def test_no_time_is_known():
    assert complete([None, None], usual_step=40) is None
