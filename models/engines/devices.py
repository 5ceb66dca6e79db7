"""Which device a network runs on, and which engine runs it: found out without importing torch."""

import ctypes
import functools
import os
from typing import Literal, get_args

from models.engines.openvino import has_openvino

Engine = Literal["openvino", "torch"]
_ENGINE_VARIABLE = "AFFWILD2_ENGINE"
_CUDA_LIBRARY = "libcuda.so.1"
# CU_CTX_SCHED_BLOCKING_SYNC
_WAIT_ASLEEP = 4


def has_gpu_driver() -> bool:
    """Whether this machine has CUDA's driver. Unlike ``default_device`` it does not start it: a fork may follow."""
    return _driver() is not None


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return None


@functools.cache
def default_device() -> str:
    """``cuda`` where the driver shows this process a GPU, else ``cpu``."""
    driver = _driver()
    if driver is None:
        return "cpu"
    count = ctypes.c_int(0)
    there = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return "cuda" if there and count.value else "cpu"


def wait_asleep() -> None:
    """Let threads of this process sleep while they wait for its GPU; by default they would spin, each on a core.

    To be called before torch uses the GPU.
    """
    driver = _driver()
    if driver is not None and default_device() == "cuda":
        driver.cuDevicePrimaryCtxSetFlags_v2(0, _WAIT_ASLEEP)


def default_engine() -> Engine:
    """torch on a GPU; on a processor OpenVINO where it is installed. ``AFFWILD2_ENGINE`` says it for processors.

    Raises:
        ValueError: the variable names no engine, or one that is not installed.
    """
    wanted = os.environ.get(_ENGINE_VARIABLE, "")
    if wanted and wanted not in get_args(Engine):
        raise ValueError(f"{_ENGINE_VARIABLE}: expected one of {', '.join(get_args(Engine))}, got {wanted!r}")
    if wanted == "openvino" and not has_openvino():
        raise ValueError(f"{_ENGINE_VARIABLE}: expected the package openvino, found none")
    if default_device() == "cuda" or wanted == "torch" or not has_openvino():
        return "torch"
    return "openvino"
