"""Imported by the process that local workers are forked from: all that they need and that may be there before a fork.

So every worker has the libraries and the compiled loops at once. The engine is not: it has threads, and a process with
threads is not one to fork.
"""

import importlib

from models.engines.devices import has_gpu_driver
from models.engines.openvino import has_openvino

_STAGES = ("index_videos", "crop_faces", "assign_subjects", "embed_faces")

for _stage in _STAGES:
    importlib.import_module(f"tasks.extract.{_stage}")
# To ask for GPUs would start the driver, which does not outlive a fork.
if not has_gpu_driver() and has_openvino():
    from models.faces.mtcnn_cpu import load_kernels

    load_kernels()
