"""Peak memory of a worker for a two-hour video in 1080p, to show that it does not grow with the length.

Run by hand: ``python tests/benchmarks/memory_long_video.py [--hours 2]`` (a quarter of an hour on two cores). Ten
seconds of a moving face are encoded once and their packets repeated. One process then indexes the whole file, detects
and embeds faces in segments at the beginning, in the middle and at the end, tracks the boxes of all frames, and decodes
every frame. The script prints the peak of each step (VmHWM, reset before the step).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from data_contracts.video.frames import read_segment
from models.faces.subjects import assign_subjects
from models.faces.tracking import track_faces
from tasks.backbones import BackboneChoice
from tasks.demo.scenes import load_portraits
from tasks.extract import assign_subjects as assign_stage
from tasks.extract import crop_faces, embed_faces, index_videos
from tasks.units import run_unit

_FPS, _SECONDS, _WIDTH, _HEIGHT = 25, 10, 1920, 1080
_SEGMENT_FRAMES = 128


def _write_clip(path: Path) -> Path:
    portrait = load_portraits()[0][:1080, :1080]
    height, width = portrait.shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS, options={"preset": "ultrafast", "crf": "28"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 2 * _FPS
        noise = np.random.default_rng(0).integers(0, 40, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
        for number in range(_FPS * _SECONDS):
            picture = noise.copy()
            left = int((_WIDTH - width) * (0.5 + 0.4 * np.sin(number / 40)))
            picture[:height, left : left + width] = portrait
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _repeat_clip(clip: Path, path: Path, times: int) -> Path:
    with av.open(str(clip)) as source:
        video = source.streams.video[0]
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(video) if p.size]
        length = round(_SECONDS / video.time_base)
        with av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(video)
            for turn in range(times):
                for data, pts, dts, keyframe in packets:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = stream, video.time_base
                    packet.pts, packet.dts = pts + turn * length, dts + turn * length
                    packet.is_keyframe = keyframe
                    target.mux(packet)
    return path


@contextmanager
def _print_peak(step: str) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")
    started = time.monotonic()
    yield
    status = Path("/proc/self/status").read_text()
    kilobytes = int(status.split("VmHWM:")[1].split()[0])
    print(f"{step:45} peak {kilobytes / 1e3:7.0f} MB, {time.monotonic() - started:7.1f} s", flush=True)


def _run(store: Store, compute: Callable[..., object], units: list) -> None:  # type: ignore[type-arg]
    for unit in units:
        report = run_unit(store.url, compute, unit)
        assert report.cause is None, report.cause


def main() -> None:
    """Print the peak memory of every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    hours = parser.parse_args().hours
    with tempfile.TemporaryDirectory(prefix="affwild2-long-") as scratch:
        folder = Path(scratch)
        path = _repeat_clip(
            _write_clip(folder / "clip.mp4"), folder / "long.mp4", max(1, round(hours * 3600 / _SECONDS))
        )
        print(f"{hours:g} h of {_WIDTH} x {_HEIGHT}, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        store = Store(folder / "store")
        with _print_peak("index_videos, whole file"):
            _run(store, index_videos.compute, index_videos.plan_index_videos({"long": path}))
        videos = index_videos.indexed_videos(store)
        units = crop_faces.plan_crop_faces(videos, params=crop_faces.CropParams(), segment_frames=_SEGMENT_FRAMES)
        for place, at in (("beginning", 0), ("middle", len(units) // 2), ("end", len(units) - 2)):
            with _print_peak(f"crop_faces, {_SEGMENT_FRAMES} frames at the {place}"):
                _run(store, crop_faces.compute, units[at : at + 1])
        source = crop_faces.source_of(crop_faces.CropParams())
        found = [StoredUnit(*unit) for unit in store.manifests("faces", source=source).items()]
        cropped = crop_faces.CroppedVideo("long", _WIDTH, found)
        with _print_peak("assign_subjects, these segments"):
            params = assign_stage.TrackingParams()
            planned = assign_stage.plan_assign_subjects([cropped], source=source, subjects={}, params=params)
            _run(store, assign_stage.compute, planned)
        with _print_peak("embed_faces, these segments"):
            subjects = embed_faces.subjects_of_source(store, source)
            choice = BackboneChoice("efficientnet_lite0")
            _run(store, embed_faces.compute, embed_faces.plan_embed_faces(subjects, source=source, backbone=choice))
        index = index_videos.read_video_index(store, index_videos.indexed_videos(store)["long"])
        with _print_peak(f"tracking, one face in each of {index.frame_count:,} frames"):
            frame = np.arange(1, index.frame_count + 1)
            left = 800 + 700 * np.sin(frame / 40)
            box = np.stack([left, left * 0 + 100, left + 300, left * 0 + 400], axis=1).astype(np.float32)
            assign_subjects(frame, box, np.ones(len(frame)), track_faces(frame, box), subject_count=1)
        with _print_peak(f"decoding, all {index.frame_count:,} frames"):
            count = sum(
                len(numbers)
                for first in range(1, index.frame_count + 1, crop_faces.SEGMENT_FRAMES)
                for numbers, _ in read_segment(path, index, first_frame=first, frame_count=crop_faces.SEGMENT_FRAMES)
            )
        assert count == index.frame_count == round(hours * 3600 / _SECONDS) * _FPS * _SECONDS


if __name__ == "__main__":
    main()
