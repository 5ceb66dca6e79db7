"""Encoded videos that are too large, with or without a truthful header, or that refer to other files."""

import shutil
import struct
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest

from data_contracts.errors import InputError
from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from tests.video_factory import VideoSpec, write_huge_picture, write_video

KINDS = {
    "h264.mp4": VideoSpec(),
    "h264.mkv": VideoSpec(),
    "h264.ts": VideoSpec(),
    "hevc.mp4": VideoSpec(codec="libx265"),
    "mpeg4.avi": VideoSpec(codec="mpeg4"),
    "mjpeg.avi": VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj420p"),
    "vp9.webm": VideoSpec(codec="libvpx-vp9", b_frames=0, codec_options={"deadline": "realtime", "cpu-used": "8"}),
    "mpeg2.mpg": VideoSpec(codec="mpeg2video"),
    "png.mov": VideoSpec(codec="png", b_frames=0, pixel_format="rgb24"),
    "ffv1.mkv": VideoSpec(codec="ffv1", b_frames=0),
}


def refused(path):
    with pytest.raises(InputError) as caught:
        index_video(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: expected ") and "\n" not in text
    return text


@pytest.mark.parametrize("name", KINDS)
def test_error_states_the_size_of_frames_that_are_too_large(name, tmp_path, monkeypatch):
    path = write_video(tmp_path / name, replace(KINDS[name], width_px=256, height_px=128))
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "pixels=32000")
    line = "frames of at most 32,000 pixels, got 256 x 128; leave it out, or set AFFWILD2_VIDEO_LIMITS"
    assert line in refused(path)
    # FFmpeg counts the margins of its buffers.
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "pixels=100000")
    assert index_video(path).width_px == 256


def test_no_memory_is_allocated_for_a_frame_that_is_too_large(tmp_path):
    path = write_huge_picture(tmp_path / "huge.mov")
    code = (
        "import resource, sys\nfrom data_contracts.video.packets import index_video\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "try: index_video(sys.argv[1])\nexcept ValueError as error: print(error)\nprint(peak() - before)"
    )
    finished = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    line, grown_kb = finished.stdout.splitlines()
    assert "at most 66,355,200 pixels, got 8200 x 8100" in line and finished.stderr == ""
    assert int(grown_kb) < 8200 * 8100 / 1024 / 2, "less than half of the frame at one byte per pixel"


@pytest.mark.parametrize("suffix", ["ts", "avi"])
def test_decoding_stops_where_frames_become_too_large(suffix, tmp_path, monkeypatch):
    spec = {"ts": VideoSpec(frame_count=12, gop_frames=4, b_frames=0)}.get(suffix, KINDS["mjpeg.avi"])
    small = write_video(tmp_path / f"small.{suffix}", spec)
    if suffix == "ts":
        large = write_video(tmp_path / "large.ts", VideoSpec(12, width_px=512, height_px=320, gop_frames=4, b_frames=0))
        joined = tmp_path / "joined.ts"
        joined.write_bytes(small.read_bytes() + large.read_bytes())
    else:
        joined = _with_larger_frames(small, tmp_path / "joined.avi", width_px=512, height_px=320)
    index = index_video(joined)
    assert (index.width_px, index.frame_count) == (96, 24 if suffix == "ts" else 40)
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "pixels=100000")
    with pytest.raises(InputError, match="frames of at most 100,000 pixels, got 512 x 320"):
        index_video(joined)
    decoded = []
    with pytest.raises(InputError, match="frames of at most 100,000 pixels, got 512 x 320"):
        for numbers, _ in read_segment(joined, index, first_frame=1, frame_count=40, chunk_frames=2):
            decoded += numbers.tolist()
    assert decoded[:8] == list(range(1, 9)) and len(decoded) <= 20


def _with_larger_frames(source, target, *, width_px, height_px):
    """Replace the second half of the packets by larger frames, which the header does not mention."""
    larger = write_video(target.with_name("l.avi"), VideoSpec(20, "mjpeg", width_px, height_px, b_frames=0,
                                                             pixel_format="yuvj420p"))  # fmt: skip
    with av.open(str(source)) as first, av.open(str(larger)) as second, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(first.streams.video[0])
        packets = [p for p in first.demux(video=0) if p.size][:20] + [p for p in second.demux(video=0) if p.size]
        for number, packet in enumerate(packets):
            packet.stream, packet.pts, packet.dts = stream, number, number
            out.mux(packet)
    return target


def test_larger_frames_within_the_limit_come_in_smaller_chunks(tmp_path):
    small = write_video(tmp_path / "small.ts", VideoSpec(frame_count=6, gop_frames=4, b_frames=0))
    large = write_video(tmp_path / "large.ts", VideoSpec(6, width_px=2560, height_px=2048, gop_frames=4, b_frames=0))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    chunks = list(read_segment(joined, index_video(joined), first_frame=1, frame_count=12, chunk_frames=6))
    assert max(rgb.base.nbytes for _, rgb in chunks) <= 3 * (1 << 23)
    assert np.concatenate([numbers for numbers, _ in chunks]).tolist()[-1] == 12


def edited(path, box, at, *numbers):
    data = bytearray(path.read_bytes())
    place = data.index(box) + 4 + at
    data[place : place + 4 * len(numbers)] = struct.pack(f">{len(numbers)}I", *numbers)
    path.write_bytes(data)
    return path


def test_tables_that_claim_too_many_frames_are_refused_before_opening(tmp_path):
    """Without the check, opening these files of a few kB takes 1.4 GB and 0.7 GB."""
    whole = write_video(tmp_path / "table.mp4")
    edited(whole, b"stsz", 4, 1, 20_000_000)
    edited(whole, b"stsc", 12, 20_000_000)
    edited(whole, b"stts", 8, 20_000_000)
    assert "at most 5,000,000 frames, got 20,000,000 or more" in refused(whole)
    pieces = write_video(tmp_path / "p.mp4", VideoSpec(container_options={"movflags": "frag_keyframe+empty_moov"}))
    edited(pieces, b"trun", 0, 0, 20_000_000)
    assert "at most 5,000,000 frames, got 20,000,000 or more" in refused(pieces)


def test_audio_samples_do_not_count_as_frames(tmp_path, monkeypatch):
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("mpeg4", rate=25), out.add_stream("pcm_s16le", rate=48_000)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
        frame.rate = 48_000
        for packet in (*video.encode(av.VideoFrame(96, 64, "yuv420p")), *video.encode(), *sound.encode(frame)):
            out.mux(packet)
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "frames=1000")
    assert index_video(path).frame_count == 1


def test_header_that_claims_too_little_is_not_trusted(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4")
    for box, at in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        edited(path, box, at, 1)
    with av.open(str(path)) as container:
        assert container.duration < 100_000, "the header claims a tenth of a second"
    assert index_video(path).frame_count == 40
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "frames=39")
    assert "at most 39 frames, got 40 or more" in refused(path)
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "hours=0.0004")
    assert "a video of at most 0.0004 hours, got " in refused(path)
    monkeypatch.setenv("AFFWILD2_VIDEO_LIMITS", "gigabytes=0.000001")
    assert "a file of at most 1e-06 GB, got " in refused(path)


@pytest.mark.parametrize("name", ["list.mp4", "concat:clip.mp4|clip.mp4"])
def test_playlists_are_not_followed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4")
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "clip.ts")
    (tmp_path / name).write_text("ffconcat version 1.0\nfile clip.mp4\n")
    with av.open(name) as container:
        assert container.streams.video, "FFmpeg follows it by default"
    refused(name)
