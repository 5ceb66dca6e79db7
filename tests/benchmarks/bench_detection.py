"""Face detection: our cascade against facenet-pytorch's, frame by frame, in one process on one thread.

Prints the ratio of times and how far boxes and landmarks are apart. Takes a video, or makes one from the portraits.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN

from data_contracts.video import index_video, read_segment
from models.mtcnn import FaceDetector
from tasks.generate_demo_data import DemoDataParams, generate_demo_data

FRAMES, ROUNDS = 32, 3


def read_frames(path: Path) -> np.ndarray:
    index = index_video(path)
    count = min(FRAMES, index.frame_count)
    return np.concatenate([frames for _, frames in read_segment(path, index, first_frame=1, frame_count=count)])


def main(video: str | None = None) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if video is None:
            generate_demo_data(Path(folder), params=DemoDataParams(1, 0, 0, frames=FRAMES))
            video = str(next(Path(folder, "videos").glob("train*")))
        frames = read_frames(Path(video))
    reference, detector = MTCNN(keep_all=True, min_face_size=40, post_process=False), FaceDetector()
    detector.detect(frames[:1])
    ratios, farthest, count_differs = [], 0.0, 0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        expected = [reference.detect(frame, landmarks=True) for frame in frames]
        middle = time.perf_counter()
        found = detector.detect(frames)
        ratios.append((middle - started) / (time.perf_counter() - middle))
    for (boxes, _, _), ours in zip(expected, found, strict=True):
        if (0 if boxes is None else len(boxes)) != len(ours):
            count_differs += 1
        elif boxes is not None:
            distances = np.abs(boxes[:, None] - ours.box_xyxy_px[None]).max(axis=2).min(axis=1)
            farthest = max(farthest, float(distances.max()))
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    print(f"detection, {len(frames)} frames {size}: {statistics.median(ratios):.2f}x facenet-pytorch per frame")
    print(f"  boxes at most {farthest:.5f} px apart; frames with another number of faces: {count_differs}")


if __name__ == "__main__":
    main(*sys.argv[1:])
