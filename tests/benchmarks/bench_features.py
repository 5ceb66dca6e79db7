"""Decoding and features of faces: the reference against ours in two threads."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import reference_pipeline
import safetensors.torch
import torch
from clips import moving_portraits, open_clips
from pairs import Pair, run_script
from PIL import Image

from data_contracts.video.frames import read_segment
from data_contracts.video.index import VideoIndex
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import Precision
from models.backbones.cpu import CpuBackbone
from models.backbones.network import build_network, load_backbone
from models.backbones.registry import get_spec
from models.engines.openvino import supported_precision
from tasks.extract.crop_faces import chunk_frames_of

ALLOCATORS = ("default", "tuned")
_THREADS = 2
# Goals with the default allocator and with one that keeps freed memory.
_GOALS: dict[Precision, tuple[float, float]] = {"bfloat16": (12.0, 3.0), "float32": (7.0, 1.8)}
_COSINES: dict[Precision, float] = {"bfloat16": 0.999, "float32": 0.999999}
_IS_ALLOCATOR_TUNED = "MALLOC_TRIM_THRESHOLD_" in os.environ


def random_weights(name: str, folder: Path) -> Path:
    """Write random weights of a network; speed does not depend on them."""
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file(build_network(get_spec(name)).state_dict(), path)
    return path


def faces(count: int, side: int = 112) -> list[np.ndarray]:
    """Return crops of a face, RGB uint8 [side, side, 3]."""
    pictures = moving_portraits(1)
    found = []
    for number in range(count):
        picture = next(pictures)
        x = 60 + number % 40
        found.append(np.asarray(Image.fromarray(picture[40:270, x : x + 200]).resize((side, side))))
    return found


def run_in_threads(backbones: list[CpuBackbone], images: list[np.ndarray]) -> Callable[[], np.ndarray]:
    """Return a call that computes embeddings in two threads, with half of the pictures each."""
    half = len(images) // 2

    def run() -> np.ndarray:
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = pool.map(
                lambda pair: pair[0].extract(pair[1])[0], zip(backbones, (images[:half], images[half:]), strict=True)
            )
            return np.concatenate(list(parts))

    return run


def check_cosines(min_p5: float) -> Callable[[np.ndarray, np.ndarray], str]:
    """Return a check of the cosine between embeddings."""

    def compare(expected: np.ndarray, got: np.ndarray) -> str:
        cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
        summary = f"cosine min {cosine.min():.5f}, p5 {np.percentile(cosine, 5):.5f}"
        assert np.percentile(cosine, 5) >= min_p5, summary
        return summary

    return compare


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs for decoding, then for EfficientNet-B0 and the bundled network in both precisions."""
    yield from decoding_pairs(quick)
    names = ["emotion_lite0"] if quick else ["tf_efficientnet_b0", "emotion_lite0"]
    images = faces(48 if quick else 192)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            weights = None if get_spec(name).bundled else random_weights(name, Path(folder))
            spec = get_spec(name)
            network = reference_pipeline.plain_network(load_backbone(name, weights=weights))
            pictures = [Image.fromarray(image) for image in images]

            def run_reference(
                network: torch.nn.Module = network, spec: object = spec, pictures: list = pictures
            ) -> np.ndarray:
                return reference_pipeline.compute_features(network, pictures, spec)  # type: ignore[arg-type]

            for precision, min_cosine in _COSINES.items():
                if supported_precision(precision) != precision:
                    continue
                backbones = [CpuBackbone(name, weights=weights, precision=precision) for _ in range(_THREADS)]
                yield Pair(
                    f"{name} features, {backbones[0].engine}",
                    run_reference,
                    run_in_threads(backbones, images),
                    check_cosines(min_cosine),
                    goal=_GOALS[precision][_IS_ALLOCATOR_TUNED] if name == "tf_efficientnet_b0" else None,
                    rounds=3,
                    reference_rounds=2,
                    work=len(images),
                    unit="faces",
                )


def decoding_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs of PyAV's defaults, which use threads, and segments that two of our threads decode like two workers.

    To show the largest possible gain, also compare PyAV's defaults with decoding that converts no pictures.
    """
    frames = 60 if quick else 250
    with open_clips(frames=frames, small_only=quick, keyframe_every=frames // 5) as clips:
        for name, path in clips.items():
            if "several" in name:
                continue
            index = index_video(path)
            half = index.frame_count // 2

            def run_reference(path: Path = path) -> list[int]:
                return [int(frame[::16, ::16].astype(int).sum()) for frame in reference_pipeline.decode_frames(path)]

            def segment(first: int, count: int, path: Path = path, index: VideoIndex = index) -> list[int]:
                chunks = read_segment(
                    path,
                    index,
                    first_frame=first,
                    frame_count=count,
                    chunk_frames=chunk_frames_of(index.width_px, index.height_px),
                )
                return [int(frame[::16, ::16].astype(int).sum()) for _, block in chunks for frame in block]

            def ours(segment=segment, half: int = half, rest: int = index.frame_count - half) -> list[int]:
                with ThreadPoolExecutor(_THREADS) as pool:
                    parts = pool.map(segment, (1, half + 1), (half, rest))
                return [total for part in parts for total in part]

            def without_pictures(path: Path = path) -> int:
                with av.open(str(path)) as container:
                    container.streams.video[0].thread_type = "AUTO"
                    return sum(1 for _ in container.decode(video=0))

            def same(expected: list[int], got: list[int]) -> str:
                assert expected == got, "pixels differ"
                return "equal pixels"

            yield Pair(
                f"decoding, {name.split(', ')[1]}",
                run_reference,
                ours,
                same,
                goal=1.7,
                work=index.frame_count,
                unit="frames",
            )
            if not quick:
                yield Pair(
                    f"decoding, {name.split(', ')[1]}, PyAV's defaults against decoding only",
                    run_reference,
                    without_pictures,
                    lambda expected, got: f"{len(expected)} and {got} frames",
                    work=index.frame_count,
                    unit="frames",
                )


if __name__ == "__main__":
    run_script(make_pairs)
