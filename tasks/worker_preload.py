"""Imports for the process that local workers are forked from, so that every worker has libraries and compiled loops.

Nothing here starts a thread, because a process with threads cannot be forked safely.
"""

import gc
import importlib
import sys

from models.engines.devices import has_gpu_driver
from models.engines.openvino import has_openvino, preload_openvino

_STAGES = (
    *("index_videos", "crop_faces", "embed_segments", "assign_subjects", "embed_faces", "embed_other_faces"),
    "identify_persons",
)
# numba and OpenVINO import these for products of matrices and calls of C in compiled loops, and to convert networks: a
# third of their time.
_UNUSED = ("scipy.linalg", "cffi", "openvino.tools.ovc")

# What is imported here stays. Searching it for garbage would take a tenth of the time, and again in each worker.
gc.disable()
for _stage in _STAGES:
    importlib.import_module(f"tasks.extract.{_stage}")
# Looking for GPUs through the driver would initialize it, and an initialized driver does not survive a fork.
if not has_gpu_driver() and has_openvino():
    from models.faces.mtcnn_cpu import load_kernels

    _hidden = [name for name in _UNUSED if sys.modules.setdefault(name, None) is None]  # type: ignore[arg-type]
    preload_openvino()
    load_kernels()
    for _name in _hidden:
        del sys.modules[_name]
gc.enable()
gc.freeze()
