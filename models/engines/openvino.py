"""Networks that OpenVINO runs on a processor: converted from torch once, kept as files, compiled for one thread.

A converted network is found again by the digest of what it was made from, so that a process which finds it needs no
torch. Where results of one network must not depend on others, each has one thread; work is shared out by processes.
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
from models.engines.precision import Precision

logger = logging.getLogger(__name__)

# Raised when a change of our own code makes other networks of the same weights.
_CONVERSION = 1
_HINTS: dict[Precision, str] = {"bfloat16": "bf16", "float32": "f32"}


def has_openvino() -> bool:
    """Whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


@functools.cache
def _core() -> Any:
    import openvino

    core = openvino.Core()
    # Pinned threads of several processes would all sit on the first core.
    core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
    return core


def supported_precision(wanted: Precision) -> Precision:
    """float32 instead of bfloat16 where this processor does not multiply in that."""
    has_bfloat16 = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return wanted if has_bfloat16 else "float32"


def converted_network(name: str, digest: str, convert: Callable[[], Any]) -> Any:
    """The network as OpenVINO's model: from its file if it has been converted before, else by ``convert``.

    ``digest`` (64 hex digits) is of all that the conversion depends on. Of processes that want it at once, one converts
    and the others wait for its file. A cache that cannot be written to is no error.
    """
    import openvino

    folder = read_settings().cache_folder / "networks"
    version = openvino.__version__.split("-")[0]
    path = folder / f"{name}-{digest[:16]}-{_CONVERSION}-{version}-{platform.machine()}.xml"
    found = _kept(path)
    if found is not None:
        return found
    with _alone_at(path):
        found = _kept(path)
        if found is not None:
            return found
        model = convert()
        try:
            _keep(model, path)
        except OSError as error:
            logger.info("%s: the converted network is not kept: %s", path, error.strerror)
        return model


def _kept(path: Path) -> Any:
    if not (path.with_suffix(".bin").exists() and path.exists()):
        return None
    try:
        return _core().read_model(str(path))
    except RuntimeError as error:
        logger.warning("%s: expected a converted network, got: %s; converting anew", path, str(error).strip())
        return None


@contextlib.contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """Of the processes that make this file, one at a time; as many as like where there can be no lock."""
    from filelock import FileLock

    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        # A folder that cannot be written to, or a drive without locks: all convert at once then, and agree.
        logger.debug("%s: no lock: %s", path, error)
    try:
        yield
    finally:
        lock.release()


def _keep(model: Any, path: Path) -> None:
    """Both files in their places, the one that is looked for first placed last."""
    import openvino

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as scratch:
        made = Path(scratch, path.name)
        openvino.save_model(model, str(made), compress_to_fp16=False)
        os.replace(made.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(made, path)


def compile_network(model: Any, *, shape: list[int], precision: Precision) -> Any:
    """An inference request on one thread; -1 in ``shape`` is any size."""
    model = model.clone()
    model.reshape(shape)
    settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    return _core().compile_model(model, "CPU", settings).create_infer_request()


def run_network(request: Any, values: Any) -> list[Any]:
    """Outputs of a request, as views that the next run overwrites."""
    request.infer([values], share_inputs=True)
    return outputs_of(request)


def outputs_of(request: Any) -> list[Any]:
    """What the last run of a request gave, as views that the next run overwrites."""
    return [request.get_output_tensor(number).data for number in range(len(request.model_outputs))]
