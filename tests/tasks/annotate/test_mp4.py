"""Copies of many kinds of videos: the same frames at the same times, as displayed, with their sound."""

from fractions import Fraction

import av
import numpy as np
import pytest

from data_contracts.video.display import Display
from data_contracts.video.frames import read_frames, read_segment
from data_contracts.video.packets import index_video
from tasks.annotate.mp4 import FrameTimes, new_frame, writing_mp4
from tests.video_factory import VideoSpec, read_number, write_video
from tests.video_kinds import KINDS


def copy_video(source, target):
    """Write all frames of a video into an MP4 file; return the index of the source, and the problems."""
    index, display, last = index_video(source), Display("yuv420p"), 0
    with writing_mp4(str(target), source, index, threads=1) as writer:
        for number, frame in read_frames(source, index, display):
            shown = new_frame(*display.to_planes(frame))
            for place in range(last + 1, number + 1):
                writer.write(place, shown)
            last = number
        problems = writer.finish()
    return index, problems


def rgb_of(path, index):
    chunks = read_segment(path, index, first_frame=1, frame_count=index.frame_count)
    return np.concatenate([frames for _, frames in chunks])


@pytest.mark.parametrize(
    "kind",
    ["uneven.mp4", "edit_list_open.mp4", "rotated.mp4", "odd_sides.mp4", "ten_bit.mp4", "hevc.mp4", "h264.avi"],
)
def test_a_copy_has_the_same_frames_at_the_same_times(tmp_path, kind):
    path = tmp_path / kind
    KINDS[kind](path) if callable(KINDS[kind]) else write_video(path, KINDS[kind])
    index, problems = copy_video(path, tmp_path / "copy.mp4")
    copy = index_video(tmp_path / "copy.mp4")
    assert problems == [] and copy.codec == "h264" and copy.method == "packets"
    np.testing.assert_allclose(copy.pts_seconds, index.pts_seconds, atol=1e-5)
    sides = index.width_px + index.width_px % 2, index.height_px + index.height_px % 2
    assert (copy.width_px, copy.height_px) == sides and copy.rotation_degrees == 0 and copy.display is None
    pictures = rgb_of(tmp_path / "copy.mp4", copy)[:, : index.height_px, : index.width_px]
    assert [read_number(one) for one in pictures] == [read_number(one) for one in rgb_of(path, index)]


@pytest.mark.parametrize(
    "spec",
    [
        VideoSpec(frame_count=2, mirrored=True),
        VideoSpec(frame_count=2, aspect=Fraction(4, 3)),
        VideoSpec(frame_count=2, codec="mjpeg", pixel_format="yuvj444p", b_frames=0),
        VideoSpec(frame_count=2, codec="png", pixel_format="rgb24", b_frames=0),
    ],
    ids=["mirrored", "wide_pixels", "full_range", "rgb"],
)
def test_a_copy_shows_what_the_decoder_shows(tmp_path, spec):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:40], picture[40:, :48], picture[40:, 48:] = (200, 60, 60), (40, 180, 60), (30, 40, 220)
    path = write_video(tmp_path / "video.mov", VideoSpec(**{**vars(spec), "picture": picture}))
    index, _ = copy_video(path, tmp_path / "copy.mp4")
    copy = index_video(tmp_path / "copy.mp4")
    before, after = rgb_of(path, index), rgb_of(tmp_path / "copy.mp4", copy)
    assert after.shape == before.shape
    inside = np.abs(after.astype(int) - before)[:, 4:32, 4:40]
    assert inside.max() <= 8


def write_with_sound(path, codec, *, rate_hz=44_100, start_seconds=0.0):
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("mpeg4", rate=25), container.add_stream(codec, rate=rate_hz, layout="mono")
        video.width, video.height = 96, 64
        for number in range(25):
            container.mux(video.encode(av.VideoFrame(96, 64, "yuv420p")))
            samples = np.sin(np.arange(rate_hz // 25) * 0.05)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray((samples * 20_000).astype(np.int16), format="s16", layout="mono")
            frame.rate, frame.pts = rate_hz, number * (rate_hz // 25) + round(start_seconds * rate_hz)
            container.mux(sound.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "copied", "rate_hz"),
    [
        ("a.mp4", "aac", "aac", 44_100),
        ("a.mkv", "libopus", "opus", 48_000),
        ("a.mkv", "libmp3lame", "mp3float", 44_100),
        ("a.mkv", "flac", "flac", 44_100),
        ("a.avi", "pcm_s16le", "aac", 44_100),
        ("a.mkv", "ac3", "aac", 44_100),
        ("a.mov", "pcm_s16le", "aac", 96_000),
    ],
)
def test_sound_is_copied_if_browsers_play_it_else_encoded(tmp_path, name, codec, copied, rate_hz):
    path = write_with_sound(tmp_path / name, codec, rate_hz=rate_hz)
    index, problems = copy_video(path, tmp_path / "copy.mp4")
    assert problems == [] and index_video(tmp_path / "copy.mp4").frame_count == index.frame_count
    with av.open(str(tmp_path / "copy.mp4")) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == copied
        samples = [frame.to_ndarray().astype(float) for frame in container.decode(sound)]
        assert sum(one.shape[-1] for one in samples) / sound.rate == pytest.approx(1, abs=0.15)
    assert np.abs(samples[len(samples) // 2]).max() > 0


def test_sound_that_begins_later_stays_in_step(tmp_path):
    path = write_with_sound(tmp_path / "late.avi", "pcm_s16le", start_seconds=0.0)
    late = write_with_sound(tmp_path / "late.mkv", "libopus", rate_hz=48_000, start_seconds=0.5)
    for source, begins in ((path, 0.0), (late, 0.5)):
        copy_video(source, tmp_path / "copy.mp4")
        with av.open(str(tmp_path / "copy.mp4")) as container:
            first = next(container.decode(audio=0))
            assert first.time == pytest.approx(begins, abs=0.1)


def test_the_index_of_the_file_comes_first(tmp_path):
    copy_video(write_video(tmp_path / "a.mp4", VideoSpec(frame_count=3)), tmp_path / "copy.mp4")
    data = (tmp_path / "copy.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_times_that_repeat_or_jump_by_days_are_ones_that_mp4_files_can_hold(tmp_path):
    index = index_video(write_video(tmp_path / "a.mp4", VideoSpec(frame_count=3)))
    vars(index)["pts"] = np.array([0, 500, 10**13])
    times = FrameTimes.of(index, Fraction(1, 12_800))
    assert times.ticks[1] == 500 and times.ticks[2] < 2**31 and "shortened" in (times.problem or "")
    vars(index)["has_pts"], vars(index)["pts_seconds"] = False, np.array([0, 0, 0.04])
    times = FrameTimes.of(index, Fraction(1, 25))
    assert times.ticks.tolist() == [0, 1, 3601] and times.time_base == Fraction(1, 90_000) and times.problem is None


def test_copies_of_a_video_have_the_same_bytes(tmp_path):
    path = write_video(tmp_path / "video.mp4", VideoSpec(frame_count=48, width_px=200, height_px=136))
    copies = [tmp_path / f"{number}.mp4" for number in range(20)]
    for copy in copies:
        copy_video(path, copy)
    assert len({copy.read_bytes() for copy in copies}) == 1
