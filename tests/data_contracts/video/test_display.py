"""Frames as displayed, compared with the output of the ffmpeg program: orientation, crop and pixel aspect ratio."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_contracts.settings import read_settings
from data_contracts.video import limits
from data_contracts.video.display import Orientation
from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from tests.compare_with_ffmpeg import compare, decode_with_program
from tests.video_factory import VideoSpec, filter_packets, hide_sides, join_files, write_jpeg_video, write_video

# A pattern without symmetry.
PATTERN = 0b1011_0000_0010_0001
UNITY = 1 << 16
FOUR_FRAMES = VideoSpec(frame_count=4, b_frames=0)


def read_all(path: Path) -> list[NDArray[np.uint8]]:
    index = index_video(path)
    return [one for _, rgb in read_segment(path, index, first_frame=1, frame_count=index.frame_count) for one in rgb]


def assert_equals_program(path: Path, *, max_difference: float = 1.0) -> None:
    """Compare frames, and segments with the whole."""
    frames, expected = read_all(path), list(decode_with_program(path, 0))
    assert [frame.shape for frame in frames] == [one.shape for one in expected]
    for frame, one in zip(frames, expected, strict=True):
        assert np.abs(frame.astype(int) - one.pixels).mean() <= max_difference
    assert compare(path, segment_frames=(1, 3)).wrong_segments == 0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("degrees", "name"), [(0, "a.mp4"), (90, "a.mkv"), (180, "a.mov"), (270, "a.mp4")])
def test_frames_are_rotated_and_mirrored(degrees: int, name: str, mirrored: bool, tmp_path: Path) -> None:
    spec = replace(FOUR_FRAMES, rotation_degrees_ccw=degrees, mirrored=mirrored)
    path = write_video(tmp_path / name, spec, first_number=PATTERN)
    assert_equals_program(path)
    index = index_video(path)
    plain = read_all(write_video(tmp_path / f"plain_{name}", FOUR_FRAMES, first_number=PATTERN))
    as_indexed = np.rot90(plain[0][:, ::-1] if index.display else plain[0], -index.rotation_degrees // 90)
    np.testing.assert_array_equal(read_all(path)[0], as_indexed)
    assert (index.display == "mirrored") is mirrored and index.problem is None
    assert (index.height_px, index.width_px) == as_indexed.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpeg_frames_is_applied(orientation: int, tmp_path: Path) -> None:
    """PyAV's list of side data fails on frames with EXIF."""
    assert_equals_program(write_jpeg_video(tmp_path / "exif.avi", orientations=[orientation] * 3))


def test_exif_orientation_holds_until_the_next_one(tmp_path: Path) -> None:
    orientations = [6, None, None, 2, None, None, 8, None]
    assert_equals_program(write_jpeg_video(tmp_path / "exif.avi", orientations=orientations))


def test_orientation_may_change_within_the_stream(tmp_path: Path) -> None:
    """SEI messages accompany keyframes; frames without one are oriented like the frame before."""
    plain = write_video(tmp_path / "plain.ts", VideoSpec(frame_count=14, gop_frames=7), first_number=PATTERN)
    parts = [
        filter_packets(plain, tmp_path / f"{number}.ts", f"h264_metadata=display_orientation=insert:{message}")
        for number, message in enumerate(("rotate=90", "rotate=180:flip=horizontal", "rotate=270:flip=vertical"))
    ]
    path = join_files(tmp_path / "joined.ts", plain, *parts)
    assert_equals_program(path)
    assert {frame.shape for frame in read_all(path)} == {(64, 96, 3), (96, 64, 3)}
    # Earlier versions gave all frames the orientation of the first one; their results are not used.
    assert index_video(path).display == "changes"


@pytest.mark.parametrize(
    ("name", "sides_px"),
    [("a.mkv", (4, 8, 12, 2)), ("a.mov", (4, 8, 12, 2)), ("a.mkv", (5, 3, 2, 7)), ("a.mkv", (0, 0, 16, 0))],
)
def test_sides_that_the_container_hides_are_cropped(
    name: str, sides_px: tuple[int, int, int, int], tmp_path: Path
) -> None:
    """The crop applies before the rotation."""
    whole = write_video(tmp_path / "whole.mkv", FOUR_FRAMES, first_number=PATTERN)
    cropped = hide_sides(whole, tmp_path / "cropped.mkv", sides_px=sides_px)
    path = filter_packets(cropped, tmp_path / name, "h264_metadata=display_orientation=insert:rotate=90")
    assert_equals_program(path)
    assert "cropped by {} {} {} {} px".format(*sides_px) in str(index_video(path).display)


def test_sides_that_the_codec_hides_are_cropped(tmp_path: Path) -> None:
    """FFmpeg alone would keep the columns on the left, because they are not aligned."""
    whole = write_video(tmp_path / "whole.mp4", FOUR_FRAMES, first_number=PATTERN)
    sides = "h264_metadata=crop_left=8:crop_right=4:crop_top=6:crop_bottom=2"
    path = filter_packets(whole, tmp_path / "cropped.mp4", sides)
    assert_equals_program(path)
    index = index_video(path)
    assert (index.width_px, index.height_px, index.display) == (84, 56, "cropped on the left by the codec")
    right_only = filter_packets(whole, tmp_path / "right.mp4", sides.replace("left=8", "left=0"))
    assert index_video(right_only).display is None


@pytest.mark.parametrize(
    ("name", "aspect", "size_px"),
    [
        ("wide.mp4", Fraction(4, 3), (128, 64)),
        ("high.mkv", Fraction(1, 2), (96, 128)),
        ("wide.ts", Fraction(16, 11), (140, 64)),
        ("high.mpg", Fraction(8, 9), (96, 72)),
        ("wide.avi", Fraction(2), (192, 64)),
        ("almost_square.mp4", Fraction(1000, 1001), (96, 64)),
    ],
)
def test_frames_are_scaled_to_square_pixels(
    name: str, aspect: Fraction, size_px: tuple[int, int], tmp_path: Path
) -> None:
    codec = {"mpg": "mpeg2video", "avi": "mpeg4"}.get(name[-3:], "libx264")
    path = write_video(tmp_path / name, replace(FOUR_FRAMES, codec=codec, aspect=aspect), first_number=PATTERN)
    index = index_video(path)
    assert index.width_px == pytest.approx(size_px[0], abs=1) and index.height_px == size_px[1]
    assert_equals_program(path)


def test_pixels_become_square_before_the_rotation(tmp_path: Path) -> None:
    spec = replace(FOUR_FRAMES, rotation_degrees_ccw=90, mirrored=True, aspect=Fraction(4, 3))
    path = write_video(tmp_path / "rotated.mp4", spec, first_number=PATTERN)
    assert (index_video(path).width_px, index_video(path).height_px) == (64, 128)
    assert_equals_program(path)


def test_aspect_ratio_of_a_broadcast_may_change(tmp_path: Path) -> None:
    square = write_video(tmp_path / "square.ts", VideoSpec(frame_count=20, aspect=Fraction(1)))
    wide = write_video(tmp_path / "wide.ts", VideoSpec(frame_count=20, aspect=Fraction(2)))
    path = join_files(tmp_path / "joined.ts", square, wide, square)
    widths_px = [frame.shape[1] for frame in read_all(path)]
    assert widths_px == [96] * 20 + [192] * 20 + [96] * 20
    assert index_video(path).display == "changes"
    assert compare(path, segment_frames=(7,)).wrong_segments == 0


@pytest.mark.parametrize("aspect", [(1000, 1), (1, 1000), (9, 1)])
def test_absurd_aspect_ratio_is_ignored_and_reported(
    aspect: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings()
    smaller = replace(settings, video_limits=replace(settings.video_limits, pixels=8 * 96 * 64))
    monkeypatch.setattr(limits, "read_settings", lambda: smaller)
    path = write_video(tmp_path / "absurd.mp4", replace(FOUR_FRAMES, aspect=Fraction(4, 3)))
    data = path.read_bytes()
    at = data.index(b"pasp") + 4
    path.write_bytes(data[:at] + b"".join(number.to_bytes(4) for number in aspect) + data[at + 8 :])
    index = index_video(path)
    assert (index.width_px, index.height_px, index.display) == (96, 64, None)
    assert f"pixel aspect ratio of {aspect[0]}:{aspect[1]} is too extreme" in str(index.problem)
    assert {frame.shape for frame in read_all(path)} == {(64, 96, 3)}


@pytest.mark.parametrize(
    ("matrix", "line"),
    [
        ((46341, 46341, -46341, 46341), "45 degrees off a quarter turn"),
        ((UNITY, UNITY // 2, 0, UNITY), "scales or shears"),
        ((UNITY, 0, 0, 2 * UNITY), "scales or shears"),
        ((0, 0, 0, 0), "singular"),
    ],
)
def test_other_transforms_are_reported(matrix: tuple[int, ...], line: str, tmp_path: Path) -> None:
    a, b, c, d = matrix
    spec = replace(FOUR_FRAMES, display_matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path = write_video(tmp_path / "other.mp4", spec)
    assert line in str(index_video(path).problem)
    assert len(read_all(path)) == 4


@pytest.mark.parametrize(
    "orientation", [Orientation(bool(a), bool(b), bool(c)) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
)
def test_every_orientation_is_that_of_its_matrix(orientation: Orientation) -> None:
    found = Orientation.of_matrix(orientation.matrix)
    pixels = np.arange(24).reshape(2, 4, 3).astype(np.uint8)
    np.testing.assert_array_equal(found.apply(pixels), orientation.apply(pixels))
    mirrored = pixels[:, ::-1] if found.is_mirrored else pixels
    np.testing.assert_array_equal(found.apply(pixels), np.rot90(mirrored, -found.rotation_degrees // 90))
