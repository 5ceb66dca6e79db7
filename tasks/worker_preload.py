"""Imports for the process that local workers are forked from, so that every worker has libraries and compiled loops.

The inference engine is not imported, because it starts threads, and a process with threads cannot be forked safely.
"""

import importlib
import sys

from models.engines.devices import has_gpu_driver
from models.engines.openvino import has_openvino

_STAGES = (
    *("index_videos", "crop_faces", "embed_segments", "assign_subjects", "embed_faces", "embed_other_faces"),
    "identify_persons",
)

for _stage in _STAGES:
    importlib.import_module(f"tasks.extract.{_stage}")
# Looking for GPUs through the driver would initialize it, and an initialized driver does not survive a fork.
if not has_gpu_driver() and has_openvino():
    from models.faces.mtcnn_cpu import load_kernels

    # For products of matrices, which the loops lack, numba would import scipy.linalg: half of the time that they take.
    is_hidden = sys.modules.setdefault("scipy.linalg", None) is None  # type: ignore[arg-type]
    load_kernels()
    if is_hidden:
        del sys.modules["scipy.linalg"]
