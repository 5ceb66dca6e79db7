"""The device and the engine that run networks, and process-wide settings for each. Nothing here imports torch."""

import ctypes
import functools
import sys

from data_contracts.settings import ENGINE, Engine, read_settings
from models.engines.openvino import has_openvino

_CUDA_LIBRARY = "libcuda.so.1"
_CU_CTX_SCHED_BLOCKING_SYNC = 4
# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def has_gpu_driver() -> bool:
    """Return whether CUDA's driver is installed, without initialising it: the process may still fork afterwards."""
    return _load_driver() is not None


def _load_driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return None


@functools.cache
def default_device() -> str:
    """Return ``cuda`` if the driver shows this process a GPU, else ``cpu``. Initialises the driver."""
    driver = _load_driver()
    if driver is None:
        return "cpu"
    count = ctypes.c_int(0)
    is_counted = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return "cuda" if is_counted and count.value else "cpu"


def block_while_waiting_for_gpu() -> None:
    """Let threads of this process sleep while they wait for its GPU; by default each spins on a core.

    Call this before torch uses the GPU.
    """
    driver = _load_driver()
    if driver is not None and default_device() == "cuda":
        driver.cuDevicePrimaryCtxSetFlags_v2(0, _CU_CTX_SCHED_BLOCKING_SYNC)


def default_engine() -> Engine:
    """Return ``torch`` on a GPU; on a processor ``openvino`` if it is installed, else ``torch``.

    The variable ``AFFWILD2_ENGINE`` overrides the choice on processors.

    Raises:
        ValueError: the variable names an unknown engine, or one that is not installed.
    """
    wanted = read_settings().engine
    if wanted == "openvino" and not has_openvino():
        raise ValueError(f"{ENGINE}: expected the package openvino, found none")
    if default_device() == "cuda" or wanted == "torch" or not has_openvino():
        return "torch"
    return "openvino"


def keep_freed_memory() -> None:
    """Make glibc reuse large freed buffers instead of returning them to the kernel.

    Without this, every batch of a network on a processor pays for fresh, zeroed pages. With another C library this
    function does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
