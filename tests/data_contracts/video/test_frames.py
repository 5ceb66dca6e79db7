"""Reading of segments: chunks, starts that do not match the index, damage."""

import gc
import logging
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from data_contracts.video.frames import WrongIndexError, read_segment
from data_contracts.video.index import VideoIndex
from data_contracts.video.packets import index_video
from tests.video_factory import VideoSpec, decode_all, read_number, write_video

FASTSTART = {"movflags": "faststart"}


def read_numbers(path: Path, index: VideoIndex, *, first: int, count: int) -> list[tuple[int, int]]:
    """Return the numbers from the reader and those drawn in the frames."""
    chunks = read_segment(path, index, first_frame=first, frame_count=count)
    return [(int(n), read_number(picture)) for numbers, rgb in chunks for n, picture in zip(numbers, rgb, strict=True)]


def test_segments_are_split_into_chunks(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    chunks = list(read_segment(path, index_video(path), first_frame=10, frame_count=11, chunk_frames=4))
    assert [numbers.tolist() for numbers, _ in chunks] == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20]]
    assert [rgb.shape for _, rgb in chunks] == [(4, 64, 96, 3), (4, 64, 96, 3), (3, 64, 96, 3)]
    assert all(numbers.dtype == np.int32 and rgb.dtype == np.uint8 for numbers, rgb in chunks)


def test_reading_the_next_chunk_does_not_change_the_last_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    reader = read_segment(path, index_video(path), first_frame=1, frame_count=8, chunk_frames=4)
    _, rgb = next(reader)
    before = rgb.copy()
    next(reader)
    np.testing.assert_array_equal(rgb, before)


def test_read_frames_are_freed_at_once(tmp_path: Path) -> None:
    """Reference cycles would keep hundreds of frames until the next garbage collection: a gigabyte at 1080p."""
    path = write_video(tmp_path / "a.mp4", VideoSpec())
    index = index_video(path)
    gc.collect()
    gc.disable()
    try:
        for _ in read_segment(path, index, first_frame=1, frame_count=40, chunk_frames=4):
            alive = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    finally:
        gc.enable()
    assert alive < 10


def test_pixels_equal_those_of_a_plain_decoder(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    frames = decode_all(path)
    (chunk,) = read_segment(path, index_video(path), first_frame=9, frame_count=9)
    np.testing.assert_array_equal(chunk[1], np.stack([picture for _, picture in frames[8:17]]))


@pytest.mark.parametrize("wrong", ["first_frame", "frame_count", "chunk_frames"])
def test_numbers_below_one_are_refused_at_once(wrong: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", VideoSpec(frame_count=3))
    arguments = {"first_frame": 1, "frame_count": 1, "chunk_frames": 1, wrong: 0}
    with pytest.raises(ValueError, match=rf"clip\.mp4: expected {wrong} >= 1, got 0"):
        read_segment(path, index_video(path), **arguments)


def test_decoding_starts_earlier_if_a_keyframe_needs_earlier_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With intra refresh the decoder drops the first frames after a "keyframe"; the reader must go further back."""
    spec = VideoSpec(b_frames=0, codec_options={"x264-params": "intra-refresh=1"})
    path = write_video(tmp_path / "refresh.mp4", spec)
    index = index_video(path)
    assert np.flatnonzero(index.keyframe).tolist() == [0, 12, 24, 36] and index.equals_packets
    with caplog.at_level(logging.DEBUG):
        assert read_numbers(path, index, first=26, count=5) == [(n, n) for n in range(26, 31)]
    assert "trying further back" in caplog.text


def test_wrong_keyframes_in_the_index_do_not_shift_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    index = index_video(path)
    shifted = replace(index, keyframe=np.roll(index.keyframe, 3))
    assert read_numbers(path, shifted, first=20, count=5) == [(n, n) for n in range(20, 25)]


def test_wrong_time_stamps_in_the_index_do_not_shift_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    index = index_video(path)
    wrong = replace(index, pts=index.pts + 7)
    with pytest.raises(WrongIndexError, match=r"clip\.mp4: expected the frames of its index, got others"):
        read_numbers(path, wrong, first=20, count=5)
    decoded = replace(wrong, method="decoding")
    assert read_numbers(path, decoded, first=20, count=5) == [(n, n) for n in range(20, 25)]


def test_time_stamps_in_decoding_order_are_detected(tmp_path: Path) -> None:
    """With the guessed time stamps of H.264 in AVI, two of three frames would get a wrong number."""
    path = write_video(tmp_path / "jumbled.avi", VideoSpec(frame_count=60, gop_frames=30))
    index = index_video(path)
    guessed = replace(index, has_pts=True, pts=np.arange(1, 61))
    assert read_numbers(path, index, first=1, count=60) == [(n, n) for n in range(1, 61)]
    numbers = read_numbers(path, guessed, first=1, count=60)
    assert all(number == picture for number, picture in numbers[-40:])
    assert [number for number, _ in numbers[-40:]] == list(range(21, 61))


def test_damaged_file_index_does_not_shift_frames(tmp_path: Path) -> None:
    """Two lost entries in the index of an AVI file shift the time stamps of all frames after a seek."""
    path = write_video(tmp_path / "table.avi", VideoSpec(codec="mpeg4", frame_count=60))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"idx1") + 8 + 16 * 16
    data[entry : entry + 32] = bytes(32)
    path.write_bytes(data)
    assert read_numbers(path, index_video(path), first=50, count=10) == [(n, n) for n in range(50, 60)]


def test_damaged_fragment_loses_only_its_own_frames(tmp_path: Path) -> None:
    spec = VideoSpec(b_frames=3, container_options={"movflags": "frag_keyframe+empty_moov"})
    path = write_video(tmp_path / "fragments.mp4", spec)
    data = bytearray(path.read_bytes())
    boxes = [place for place in range(len(data)) if data[place : place + 4] == b"moof"]
    data[boxes[2] + 20 : boxes[2] + 60] = b"\xff" * 40
    path.write_bytes(data)
    numbers = read_numbers(path, index_video(path), first=1, count=40)
    assert [picture for _, picture in numbers] == [*range(1, 25), *range(37, 41)]


def damage_packet(path: Path, *, frame: int, offset: int = 0, content: bytes | None = None) -> None:
    """Overwrite the stored bytes of one frame, with zeros unless ``content`` is given."""
    index = index_video(path)
    with av.open(str(path)) as container:
        packet = next(p for p in container.demux(video=0) if p.pts == index.pts[frame - 1])
        position, size = packet.pos, packet.size
    assert position is not None
    content = bytes(size) if content is None else content
    data = bytearray(path.read_bytes())
    data[position + offset : position + offset + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize("first", [1, 15, 20, 21])
def test_lost_frame_leaves_a_gap_and_shifts_nothing(first: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mp4", VideoSpec(gop_frames=1, b_frames=0, container_options=FASTSTART))
    damage_packet(path, frame=20)
    index = index_video(path)
    assert index.frame_count == 40
    expected = [(n, n) for n in range(first, 31) if n != 20]
    assert read_numbers(path, index, first=first, count=31 - first) == expected


def test_lost_first_frame_is_not_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mp4", VideoSpec(gop_frames=1, b_frames=0))
    damage_packet(path, frame=1)
    assert index_video(path).frame_count == 39


@pytest.mark.parametrize("frame", range(26, 32))
def test_damage_among_b_frames_does_not_shift_later_frames(frame: int, tmp_path: Path) -> None:
    """An MPEG-4 decoder returns late, duplicate or invented frames around a damaged one, until the next keyframe."""
    path = write_video(tmp_path / "damaged.avi", VideoSpec(codec="mpeg4", frame_count=60))
    damage_packet(path, frame=frame, offset=8, content=b"\xa5\x5a\xff\x13")
    index = index_video(path)
    for first in (13, 25):
        pictures: dict[int, np.ndarray] = {}
        for numbers, rgb in read_segment(path, index, first_frame=first, frame_count=60):
            pictures.update(zip(numbers.tolist(), rgb, strict=True))
        assert [read_number(pictures[number]) for number in range(37, 61)] == list(range(37, 61))
        assert [read_number(pictures[number]) for number in range(first, 25)] == list(range(first, 25))


def test_change_of_frame_size_starts_a_new_chunk(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", VideoSpec(frame_count=20, gop_frames=10))
    large = write_video(tmp_path / "large.ts", VideoSpec(frame_count=20, width_px=128, height_px=96), first_number=21)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    index = index_video(joined)
    shapes = [rgb.shape[1:3] for _, rgb in read_segment(joined, index, first_frame=1, frame_count=40)]
    assert shapes == [(64, 96), (64, 96), (96, 128), (96, 128)]
    assert read_numbers(joined, index, first=15, count=20) == [(n, n) for n in range(15, 35)]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_videos_are_decoded_upright(degrees: int, tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", VideoSpec(frame_count=3))
    rotated = write_video(tmp_path / "rotated.mp4", VideoSpec(frame_count=3, rotation_degrees_ccw=degrees))
    (one,) = read_segment(plain, index_video(plain), first_frame=1, frame_count=3)
    (other,) = read_segment(rotated, index_video(rotated), first_frame=1, frame_count=3)
    np.testing.assert_array_equal(other[1], np.rot90(one[1], degrees // 90, axes=(1, 2)))


@pytest.mark.parametrize("matrix", ["YCgCo", "bt2020c", "ICtCp"])
def test_color_spaces_unknown_to_ffmpeg_are_converted_as_the_default(matrix: str, tmp_path: Path) -> None:
    usual, rare = (
        write_video(tmp_path / f"{name}.mp4", VideoSpec(frame_count=6, codec_options={"x264-params": params}))
        for name, params in (("usual", "threads=1"), ("rare", f"threads=1:colormatrix={matrix}"))
    )
    with av.open(str(rare)) as container:
        assert next(container.decode(video=0)).colorspace in (8, 10, 14)
    ((_, expected),) = read_segment(usual, index_video(usual), first_frame=1, frame_count=6)
    ((_, got),) = read_segment(rare, index_video(rare), first_frame=1, frame_count=6)
    np.testing.assert_array_equal(got, expected)
