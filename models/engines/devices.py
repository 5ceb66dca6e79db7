"""Which device a network runs on, and which engine runs it: found out without importing torch."""

import ctypes
import functools

from data_contracts.settings import ENGINE, Engine, read_settings
from models.engines.openvino import has_openvino

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
    wanted = read_settings().engine
    if wanted == "openvino" and not has_openvino():
        raise ValueError(f"{ENGINE}: expected the package openvino, found none")
    if default_device() == "cuda" or wanted == "torch" or not has_openvino():
        return "torch"
    return "openvino"
