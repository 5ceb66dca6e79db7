"""Video files to features in Parquet on a GPU: the stages in one process, and in several that share the GPU.

    python tests/benchmarks/measure_gpu_stages.py VIDEO... [--processes 1 8] [--copies 4] [--json FILE]

Needs neither Prefect nor Dask. Each process has its own units, and all processes start a stage together, like the
workers of a machine with one GPU. The first unit of each stage is not timed.
"""

import argparse
import json
import multiprocessing
import queue
import resource
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from models.faces.tracking import TrackingParams
from tasks import worker_models
from tasks.backbones import BackboneChoice
from tasks.extract import assign_subjects, crop_faces, embed_faces, index_videos
from tasks.units import run_unit

_BACKBONE = "emotion_lite0"
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Job:
    """The work of each process."""

    video: Path
    folder: Path
    copies: int


def run_stages(job: Job, rank: int, barrier: Barrier, found: "queue.Queue[dict[str, Any]]") -> None:
    """Run all stages in one process; the first process puts its measurements into ``found``."""
    torch.set_num_threads(1)
    store = Store(str(job.folder / f"store_{rank}"))
    videos = {f"{job.video.stem}_{number}": job.video for number in range(job.copies + 1)}
    params, backbone = crop_faces.CropParams(), BackboneChoice.find(_BACKBONE, None)
    source = crop_faces.source_of(params)
    worker_models.get_backbone(backbone.name, backbone.weights, backbone.precision).extract(
        [np.zeros((64, 64, 3), np.uint8)]
    )
    seconds: dict[str, float] = {}
    processor_seconds: dict[str, float] = {}

    def run(module: Any, units: list[Any]) -> None:
        name = module.__name__.removeprefix("tasks.")
        for unit in units[:1]:
            assert run_unit(store.url, module.compute, unit).cause is None
        barrier.wait()
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        for unit in units[1:]:
            report = run_unit(store.url, module.compute, unit)
            assert report.cause is None, report
        after = resource.getrusage(resource.RUSAGE_SELF)
        processor_seconds[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        barrier.wait()
        seconds[name] = time.perf_counter() - start

    run(index_videos, index_videos.plan_index_videos(videos))
    known = index_videos.indexed_videos(store)
    crops = crop_faces.plan_crop_faces(known, params=params)
    run(crop_faces, crops)
    cropped = crop_faces.cropped_videos(store, crops)
    run(
        assign_subjects,
        assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=TrackingParams()),
    )
    faces = embed_faces.subjects_of_source(store, source)
    run(embed_faces, embed_faces.plan_embed_faces(faces, source=source, backbone=backbone))
    if rank == 0:
        peak_gb = torch.cuda.max_memory_reserved() / 1e9
        found.put({"seconds": seconds, "processor_seconds": processor_seconds, "torch_gb": peak_gb})


def measure(job: Job, processes: int) -> dict[str, Any]:
    """Return frames per second of each stage and of all stages, summed over all processes."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(processes), context.Queue()
    children = [context.Process(target=run_stages, args=(job, rank, barrier, found)) for rank in range(processes)]
    for child in children:
        child.start()
    try:
        seen = found.get(timeout=_TIMEOUT_SECONDS)
    except queue.Empty:
        for child in children:
            child.kill()
        raise
    for child in children:
        child.join()
    own_frames = index_video(job.video).frame_count * job.copies
    per_second = {stage: own_frames * processes / seconds for stage, seconds in seen["seconds"].items()}
    whole = own_frames * processes / sum(seen["seconds"].values())
    processor_ms = {stage: 1000 * seconds / own_frames for stage, seconds in seen["processor_seconds"].items()}
    return {
        "processes": processes,
        "frames_per_s": whole,
        "stage_frames_per_s": per_second,
        "processor_ms_a_frame": processor_ms,
        "torch_gb_a_process": seen["torch_gb"],
    }


def main() -> None:
    """Measure all parts and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for path in arguments.videos:
        for processes in arguments.processes:
            name = f"whole {path.name}, {processes} processes"
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found[name] = measure(Job(path, Path(folder), arguments.copies), processes)
                except Exception as error:
                    found[name] = {"failed": repr(error)}
            print(name, json.dumps(found[name]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
