"""Values of a video index, and its round trip through stored rows."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.schemas.faces import FRAMES
from data_contracts.video.index import VideoIndex


def make_index(**changes: Any) -> VideoIndex:
    fields: dict[str, Any] = {
        "pts": np.array([0, 512, 1024, 2048], dtype=np.int64),
        "pts_seconds": np.array([0.0, 0.04, 0.08, 0.16]),
        "keyframe": np.array([True, False, True, False]),
        "has_pts": True,
        "width_px": 64,
        "height_px": 48,
        "rotation_degrees": 0,
        "codec": "h264",
        "claimed_frame_count": 4,
        "average_fps": 18.75,
    }
    return VideoIndex(**{**fields, **changes})


def test_counts_and_times() -> None:
    index = make_index()
    assert (index.frame_count, index.duration_seconds) == (4, 0.16)


def test_keyframe_at_or_before() -> None:
    found = [make_index().keyframe_at_or_before(frame) for frame in range(6)]
    assert found == [None, 1, 1, 3, 3, 3]
    assert make_index(keyframe=np.zeros(4, dtype=bool)).keyframe_at_or_before(4) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keyframe": np.array([True])}, "one shape"),
        ({name: np.array([]) for name in ("pts", "pts_seconds", "keyframe")}, "n >= 1"),
        ({"pts": np.array([0, 512, 512, 1024])}, "strictly increasing"),
        ({"rotation_degrees": 45}, "got 45"),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_index(**changes)


def test_unused_pts_may_repeat() -> None:
    assert make_index(pts=np.zeros(4, dtype=np.int64), has_pts=False).frame_count == 4


@pytest.mark.parametrize("has_pts", [True, False])
def test_round_trip_through_rows(has_pts: bool) -> None:
    index = make_index(has_pts=has_pts, pts=make_index().pts * has_pts)
    names = (
        "width_px",
        "height_px",
        "rotation_degrees",
        "codec",
        "claimed_frame_count",
        "average_fps",
        "problem",
    )
    row = {name: getattr(index, name) for name in names}
    unknown = None if has_pts else np.ones(4, dtype=bool)
    columns = [np.arange(1, 5), pa.array(index.pts, mask=unknown), index.pts_seconds, index.keyframe]
    table = pa.table(dict(zip(FRAMES.schema.names, columns, strict=True))).cast(FRAMES.schema)

    back = VideoIndex.from_rows(row, table)

    for name in ("pts", "pts_seconds", "keyframe"):
        np.testing.assert_array_equal(getattr(back, name), getattr(index, name))
    assert {name: getattr(back, name) for name in row} == row
    assert back.has_pts is has_pts


def test_missing_times_become_evenly_spaced() -> None:
    row = {"width_px": 64, "height_px": 48, "rotation_degrees": 0, "codec": "h264"}
    row |= {"claimed_frame_count": 0, "average_fps": 20.0, "problem": None}
    nothing = pa.nulls(3, pa.int64())
    table = pa.table({"pts": nothing, "pts_seconds": nothing.cast(pa.float64()), "keyframe": [True, False, False]})
    np.testing.assert_allclose(VideoIndex.from_rows(row, table).pts_seconds, [0, 0.05, 0.1])
