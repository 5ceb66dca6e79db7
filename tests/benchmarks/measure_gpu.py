"""Speed of features and detection on a GPU, from frames and crops in memory, against the reference on the same GPU.

    python tests/benchmarks/measure_gpu.py VIDEO... --crops FOLDER [--json FILE]

Needs neither Prefect nor Dask. ``measure_gpu_stages.py`` measures whole extractions. The limit of a network follows
from its necessary bytes and operations and from the card's rates, which are measured in the same run.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.torch
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torch import nn

from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import Precision
from models.backbones.gpu import GpuBackbone, fold_batch_norms
from models.backbones.network import build_network, load_backbone, normalise, run_early_layers, run_late_layers
from models.backbones.registry import BackboneSpec, get_spec
from models.backbones.resizing import resize_to_square
from models.faces.detection import DetectorParams
from models.faces.mtcnn import FaceDetector
from models.faces.tracking import iou
from tasks.extract import crop_faces

_NETWORKS = ("tf_efficientnet_b0", "tf_efficientnet_b2", "emotion_lite0")
_THREADS = 16


def device_seconds(call: Callable[[], Any], *, rounds: int = 10) -> float:
    """Return the median device time of a call, in seconds, after two untimed calls."""
    call(), call()
    found = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return statistics.median(found)


def wall_seconds(call: Callable[[], Any], *, rounds: int = 5) -> float:
    """Return the median wall time of a synchronous call, in seconds, after one untimed call."""
    call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def measure_card_rates() -> dict[str, float]:
    """Return bytes/s of a copy on the device (read and written), and float16 operations/s of a matrix product."""
    one = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(one)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    return {
        "bytes": 2 * one.numel() / device_seconds(lambda: other.copy_(one)),
        "operations": 2 * 8192**3 / device_seconds(lambda: a @ a),
    }


def limit_seconds(network: nn.Module, pixels: torch.Tensor, rates: dict[str, float]) -> float:
    """Return the minimum time of a float16 batch: only reading, multiplying and writing of each convolution counts."""
    total = 0.0

    def count(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        moved = 2 * (inputs[0].numel() + output.numel() + layer.weight.numel())
        multiplied = 2 * output.numel() * layer.weight[0].numel()
        total += max(moved / rates["bytes"], multiplied / rates["operations"])

    hooks = [
        layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    run_late_layers(network, run_early_layers(network, pixels))
    for hook in hooks:
        hook.remove()
    return total


def make_network(name: str, crops: list[np.ndarray]) -> tuple[nn.Module, Any]:
    """Build the network with its bundled weights, or with random weights and normalisations set on the crops."""
    spec = get_spec(name)
    if spec.bundled:
        return load_backbone(name, device="cuda").network, spec
    torch.manual_seed(0)
    network = build_network(spec).cuda().train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.3
    with torch.no_grad():
        for first in range(0, 256, 32):
            network(normalise(resize_crops(crops[first : first + 32], spec), spec))
    return network.eval(), spec


def resize_crops(crops: list[np.ndarray], spec: BackboneSpec) -> torch.Tensor:
    """Resize crops on the processor; uint8 on the device."""
    squares = [resize_to_square(crop, spec.input_px, spec.interpolation) for crop in crops]
    return torch.from_numpy(np.stack(squares)).cuda()


@torch.inference_mode()
def measure_features(name: str, crops: list[np.ndarray], rates: dict[str, float], folder: Path) -> dict[str, Any]:
    """Measure one network: the reference in float32 with batches of 96, and ours."""
    network, spec = make_network(name, crops)
    plain = network.to(memory_format=torch.contiguous_format)
    batch = normalise(resize_crops(crops[:96], spec), spec)
    reference = device_seconds(lambda: run_late_layers(plain, run_early_layers(plain, batch)), rounds=5)
    images = crops[:256]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pixels = normalise(resize_crops(images, spec), spec)
        exact = torch.cat([run_late_layers(plain, run_early_layers(plain, part))[0] for part in pixels.split(64)])
    found: dict[str, Any] = {"name": name, "reference_per_s": 96 / reference}
    weights = folder / f"{name}.safetensors"
    safetensors.torch.save_file({key: value.contiguous() for key, value in network.state_dict().items()}, weights)
    for precision in get_args(Precision):
        ours = GpuBackbone(name, weights=weights, precision=precision)
        start = time.perf_counter()
        got = torch.from_numpy(ours.extract(images)[0]).cuda()
        ready = time.perf_counter() - start
        assert ours._graph is not None
        graph = ours._graph[1]
        cosine = nn.functional.cosine_similarity(got.double(), exact.double())
        found[ours.engine] = {
            "first_batch_s": ready,
            "graph_per_s": len(images) / device_seconds(graph._graph.replay),  # type: ignore[union-attr]
            "extract_per_s": len(images) / wall_seconds(lambda ours=ours: ours.extract(images)),
            "cosine_p5": float(cosine.quantile(0.05)),
        }
    found["limit_per_s"] = len(images) / limit_seconds(fold_batch_norms(network), pixels, rates)
    found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def measure_faces(path: Path) -> dict[str, Any]:
    """Measure facenet-pytorch frame by frame on the device, and ours; compare boxes with it and with ours on a CPU."""
    index = index_video(path)
    count = crop_faces.chunk_frames_of(index.width_px, index.height_px)
    _, frames = next(read_segment(path, index, first_frame=1, frame_count=count, chunk_frames=count))
    reference = MTCNN(keep_all=True, min_face_size=40, post_process=False, device="cuda")
    few = frames[:16]
    detector = FaceDetector(DetectorParams(), device="cuda")
    expected = FaceDetector(DetectorParams()).detect(few)
    ours = [found.box_xyxy_px for found in detector.detect(few)]
    reference_boxes = [reference.detect(frame)[0] for frame in few]
    device_frames = detector.to_device(frames)
    return {
        "name": path.name,
        "size": f"{frames.shape[2]} x {frames.shape[1]}",
        "faces_per_frame": float(np.mean([len(found) for found in detector.detect(frames)])),
        "reference_per_s": len(few) / wall_seconds(lambda: [reference.detect(frame) for frame in few], rounds=2),
        "detect_per_s": len(frames) / wall_seconds(lambda: detector.detect(frames)),
        "detect_moved_per_s": len(frames) / wall_seconds(lambda: detector.detect(device_frames)),
        "agreement_with_cpu": compare_boxes([found.box_xyxy_px for found in expected], ours),
        "agreement_with_reference": compare_boxes(
            [np.zeros((0, 4)) if boxes is None else boxes for boxes in reference_boxes], ours
        ),
    }


def compare_boxes(expected: list[np.ndarray], got: list[np.ndarray]) -> dict[str, float]:
    """Return the overlap of each expected box with our best box, and the number of frames with another face count."""
    pairs = list(zip(expected, got, strict=True))
    overlaps = np.concatenate([iou(a.astype(np.float64), b).max(axis=1) for a, b in pairs if len(a) and len(b)])
    other = sum(len(a) != len(b) for a, b in pairs)
    return {"median": float(np.median(overlaps)), "p5": float(np.percentile(overlaps, 5)), "other_count": other}


def main() -> None:
    """Measure all parts and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ThreadPoolExecutor(_THREADS) as pool:
        files = sorted(arguments.crops.iterdir())[:512]
        crops = list(pool.map(lambda file: np.asarray(Image.open(file).convert("RGB")), files))
    folder, rates = Path(tempfile.mkdtemp()), measure_card_rates()
    found: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "rates": rates}
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        *((f"features {name}", lambda name=name: measure_features(name, crops, rates, folder)) for name in _NETWORKS),
        *((f"faces {path.name}", lambda path=path: measure_faces(path)) for path in arguments.videos),
    ]
    for name, part in parts:
        try:
            found[name] = part()
        except Exception as error:
            found[name] = {"failed": repr(error)}
            print(f"{name}: {error!r}", file=sys.stderr)
        print(name, json.dumps(found[name]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
