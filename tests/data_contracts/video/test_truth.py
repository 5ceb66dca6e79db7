"""Frame numbers compared with an independent decoder: the program ``ffmpeg``, another build than PyAV's."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from av.video.stream import VideoStream

from data_contracts.errors import InputError
from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from tests.video_factory import VideoSpec, numbered_picture, read_number, write_video


def numbers_by_ffmpeg(path: Path, *, width_px: int, height_px: int, stream: int = 0) -> list[int]:
    """Return the numbers drawn in the program's output frames, none dropped or duplicated to even out the rate."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", f"0:v:{stream}"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height_px, width_px, 3)
    return [read_number(frame) for frame in frames]


def assert_numbers_agree(path: Path, *, stream: int = 0) -> None:
    index = index_video(path)
    truth = numbers_by_ffmpeg(path, width_px=index.width_px, height_px=index.height_px, stream=stream)
    assert index.frame_count == len(truth)
    for first in sorted({1, 2, 11, 12, 13, 14, 25, 26, len(truth)} & set(range(1, len(truth) + 1))):
        shown = {}
        for numbers, rgb in read_segment(path, index, first_frame=first, frame_count=len(truth)):
            shown |= {int(n): read_number(picture) for n, picture in zip(numbers, rgb, strict=True)}
        assert shown == {n: truth[n - 1] for n in range(first, len(truth) + 1)}, f"from frame {first}"


def _remux(source: Path, target: Path, change) -> Path:  # type: ignore[no-untyped-def]
    """Copy the packets of a file and change each by ``change(number, packet)``."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            change(number, packet)
            packet.stream = stream
            new.mux(packet)
    return target


def test_time_stamps_may_wrap(tmp_path: Path) -> None:
    """MPEG-TS time stamps wrap at 2^33, after 26.5 hours; a recording may start just before."""

    def shift(number: int, packet: av.Packet) -> None:
        start = Fraction((1 << 33) - 45_000, 90_000)
        packet.pts += round(start / packet.time_base)
        packet.dts += round(start / packet.time_base)

    assert_numbers_agree(_remux(write_video(tmp_path / "a.ts"), tmp_path / "wraps.ts", shift))


def test_time_stamps_may_repeat_or_decrease(tmp_path: Path) -> None:
    """Two concatenated recordings: the times of the second restart."""
    first = write_video(tmp_path / "a.ts", VideoSpec(frame_count=30))
    second = write_video(tmp_path / "b.ts", VideoSpec(frame_count=30), first_number=31)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert_numbers_agree(joined)


def test_the_default_video_stream_is_used(tmp_path: Path) -> None:
    """The other stream has larger frames."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((96, 64), (192, 128)):
            stream = container.add_stream("libx264", rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(1, 31):
            for place, stream in enumerate(streams):
                picture = numbered_picture(number + 100 * place, width_px=stream.width, height_px=stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    assert (index_video(path).width_px, index_video(path).frame_count) == (96, 30)
    assert_numbers_agree(path, stream=0)


@pytest.mark.parametrize("claimed", [0, 7, 1_000_000])
def test_wrong_frame_counts_in_headers_are_ignored(claimed: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", VideoSpec(codec="mpeg4", b_frames=0))
    data = path.read_bytes()
    for header, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        at = data.index(header) + offset
        data = data[:at] + claimed.to_bytes(4, "little") + data[at + 4 :]
    path.write_bytes(data)
    assert_numbers_agree(path)


def test_huge_frame_is_refused(tmp_path: Path) -> None:
    """A header of a few bytes must not make the decoder allocate gigabytes."""
    spec = VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj420p", frame_count=2)
    path = write_video(tmp_path / "a.avi", spec)
    start_of_frame = bytes.fromhex("ffc0001108")
    data, count = path.read_bytes(), 0
    while (at := data.find(start_of_frame, count)) >= 0:
        sides_at = at + len(start_of_frame)
        data = data[:sides_at] + (60_000).to_bytes(2, "big") * 2 + data[sides_at + 4 :]
        count = sides_at
    assert count
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected a video with frames, got none"):
        index_video(path)
