"""Networks that OpenVINO runs on a processor: converted from torch and compiled once, cached as files.

The cache key of a converted network is a digest of everything that the conversion depends on, so a process that finds
the file needs no torch. Compiled networks are cached, too, which halves the time of loading them. Each network has one
thread, so that results do not depend on the number of threads; several processes provide the parallelism.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_contracts.settings import read_settings
from data_contracts.vocabulary import Precision

logger = logging.getLogger(__name__)

# Increase this when a change of our code converts the same weights to another network.
_CONVERSION = 1
_HINTS: dict[Precision, str] = {"bfloat16": "bf16", "float32": "f32"}


def has_openvino() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def preload_openvino() -> None:
    """Import OpenVINO. It starts no thread until it compiles a network, so this process may still fork."""
    import openvino  # noqa: F401


@functools.cache
def _core() -> Any:
    import openvino

    core = openvino.Core()
    # With pinning, the threads of several processes would all run on the first core.
    core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
    return core


def supported_precision(wanted: Precision) -> Precision:
    """Return ``wanted``, or float32 if OpenVINO does not multiply bfloat16 on this processor."""
    has_bfloat16 = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return wanted if has_bfloat16 else "float32"


def load_or_convert(name: str, digest: str, convert: Callable[[], Any]) -> Any:
    """Return a network as an OpenVINO model: from the cache if possible, else from ``convert``, which fills the cache.

    ``digest`` (64 hex digits) covers everything that the conversion depends on. If several processes need the network
    at once, one converts it and the others wait. A cache folder that is not writable is not an error.
    """
    path = _cache_path(name, digest)
    cached = _read_cached(path)
    if cached is not None:
        return cached
    with _lock_file(path):
        cached = _read_cached(path)
        if cached is not None:
            return cached
        model = convert()
        try:
            _write_cached(model, path)
        except OSError as error:
            logger.info("%s: cannot cache the converted network: %s", path, error.strerror)
        return model


def is_cached(name: str, digest: str) -> bool:
    """Return whether ``load_or_convert`` has converted this network before, with any version of OpenVINO."""
    return any(_cache_folder().glob(f"{_cache_name(name, digest)}-*.xml"))


def _cache_folder() -> Path:
    return read_settings().cache_folder / "networks"


def _cache_name(name: str, digest: str) -> str:
    return f"{name}-{digest[:16]}-{_CONVERSION}"


def _cache_path(name: str, digest: str) -> Path:
    import openvino

    version = openvino.__version__.split("-")[0]
    return _cache_folder() / f"{_cache_name(name, digest)}-{version}-{platform.machine()}.xml"


def _read_cached(path: Path) -> Any:
    if not (path.with_suffix(".bin").exists() and path.exists()):
        return None
    try:
        return _core().read_model(str(path))
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        logger.warning("%s: expected a converted network, got: %s; converting it again", path, cause)
        return None


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for this file, or none if locking is impossible."""
    from filelock import FileLock

    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        # The folder is not writable or its drive has no locks. Then all processes convert, with equal results.
        logger.debug("%s: no lock: %s", path, error)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Yield a place for a file that is moved to ``path`` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as scratch:
        yield Path(scratch, path.name)


def _write_cached(model: Any, path: Path) -> None:
    """Write both files of a model, the .xml file last: readers look for it first."""
    import openvino

    with _unfinished(path) as temporary:
        openvino.save_model(model, str(temporary), compress_to_fp16=False)
        os.replace(temporary.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(temporary, path)


def load_network(name: str, digest: str, convert: Callable[[], Any], *, shape: list[int], precision: Precision) -> Any:
    """Return an inference request that runs on one thread, from the cache if possible.

    -1 in ``shape`` means any size; ``name``, ``digest`` and ``convert`` are those of ``load_or_convert``.
    """
    settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    size = "x".join(str(side) if side > 0 else "n" for side in shape)
    path = _cache_path(f"{name}-{size}-{precision}", digest).with_suffix(".compiled")
    try:
        compiled = _core().import_model(path.read_bytes(), "CPU", settings)
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        # It does not exist yet, is damaged, or is for other instructions of processors.
        logger.debug("%s: compiled again: %s", path, error)
        model = load_or_convert(name, digest, convert).clone()
        model.reshape(shape)
        compiled = _core().compile_model(model, "CPU", settings)
        with contextlib.suppress(OSError), _unfinished(path) as temporary:
            temporary.write_bytes(compiled.export_model().getvalue())
            os.replace(temporary, path)
    return compiled.create_infer_request()


def run_network(request: Any, values: Any) -> list[Any]:
    """Run a request and return its outputs as views, which the next run overwrites."""
    import openvino

    # Passed to ``infer``, an array would be wrapped and its outputs copied, which takes longer than a small network.
    request.set_input_tensor(openvino.Tensor(values, shared_memory=True))
    request.infer(share_outputs=True)
    return get_outputs(request)


def get_outputs(request: Any) -> list[Any]:
    """Return the outputs of a request's last run as views, which the next run overwrites."""
    return [request.get_output_tensor(number).data for number in range(len(request.model_outputs))]
