"""Face detection: facenet-pytorch frame by frame with all threads, against our detector in two threads.

Exact: every frame is searched completely. Following: the default for videos, in groups of eight frames.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import reference_pipeline
from clips import open_clips
from pairs import Pair, run_script

from models.faces.detection import Detections, DetectorParams
from models.faces.following import FaceFollower
from models.faces.mtcnn_cpu import CpuFaceDetector
from models.faces.tracking import iou

_THREADS = 2
_GROUP = DetectorParams().search_every_frames


def make_search(frames: np.ndarray, params: DetectorParams) -> Callable[[], list[Detections]]:
    """Return a search that distributes frames to two detectors in groups of eight."""
    detectors = [CpuFaceDetector(params) for _ in range(_THREADS)]
    groups = range(0, len(frames), _GROUP)

    def search_part(worker: int) -> dict[int, list[Detections]]:
        follower = FaceFollower(detectors[worker])
        return {
            first: [follower.detect(first + n + 1, frame) for n, frame in enumerate(frames[first : first + _GROUP])]
            for first in groups[worker::_THREADS]
        }

    def run() -> list[Detections]:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = {first: faces for part in pool.map(search_part, range(_THREADS)) for first, faces in part.items()}
        return [face for first in groups for face in found[first]]

    return run


def check_boxes(min_p5: float, *, missed_share: float, every_face: bool) -> Callable[..., str]:
    """Return a check of the overlap of each face (or of the largest) and of the number of faces per frame."""

    def compare(expected: list, got: list[Detections]) -> str:
        overlaps, missed, extra = [], 0, 0
        for (boxes, _), ours in zip(expected, got, strict=True):
            count = 0 if boxes is None else len(boxes)
            missed += len(ours) < count if every_face else (count > 0) > (len(ours) > 0)
            extra += len(ours) > count
            if count and len(ours):
                best = iou(boxes.astype(np.float64), ours.box_xyxy_px).max(axis=1)
                overlaps += best.tolist() if every_face else [best[0]]
        median, p5 = np.median(overlaps), np.percentile(overlaps, 5)
        summary = f"IoU median {median:.4f}, p5 {p5:.4f}; frames with fewer faces {missed}, more {extra}"
        assert p5 >= min_p5 and missed <= missed_share * len(got) and not extra, summary
        return summary

    return compare


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield exact and following detection, for clips with one and with several faces."""
    goals = {
        "one face, 360p": (6.0, 10.0),
        "one face, 1080p": (6.0, 17.0),
        "several faces, 1080p": (6.0, None),
    }
    with open_clips(frames=32 if quick else 96, small_only=quick) as clips:
        for name, (exact_goal, following_goal) in goals.items():
            if name not in clips:
                continue
            frames = np.stack(list(reference_pipeline.decode_frames(clips[name])))
            reference = reference_pipeline.make_detector()

            def run_reference(frames: np.ndarray = frames, reference: object = reference) -> list:
                return [reference.detect(frame) for frame in frames]  # type: ignore[attr-defined]

            shared = {"work": len(frames), "unit": "frames", "rounds": 3, "reference_rounds": 2}
            exact = DetectorParams(search_every_frames=1)
            yield Pair(
                f"faces, {name}, exact",
                run_reference,
                make_search(frames, exact),
                check_boxes(0.99, missed_share=0, every_face=True),
                goal=exact_goal,
                **shared,
            )
            if following_goal:
                params = replace(exact, search_every_frames=_GROUP)
                yield Pair(
                    f"faces, {name}, following",
                    run_reference,
                    make_search(frames, params),
                    check_boxes(0.95, missed_share=0.08, every_face=False),
                    goal=following_goal,
                    **shared,
                )


if __name__ == "__main__":
    run_script(make_pairs)
