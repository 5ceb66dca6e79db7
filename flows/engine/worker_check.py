"""Check before the first unit that the workers of a cluster by address can do the work.

A worker without this program, the store or the videos is reported in one line, instead of a crash of every unit.
"""

import logging
import os
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from data_contracts.errors import printable
from data_contracts.store.store import Store
from flows.engine.console import print_warning
from infra.clusters import ClusterError
from tasks.units import Work

logger = logging.getLogger(__name__)
_PROBE = ".worker_check"
_MAY_DIFFER = "results may differ in the last digits"
_READABLE = "readable"


@dataclass(frozen=True)
class _Worker:
    """Facts about a worker, from a function that runs there.

    Attributes:
        python: version, such as ``3.11``.
        program: digest of the sources of this program; None if it is not installed.
        libraries: versions by name.
        store: content of the probe file in the store, or why it cannot be read.
        files: path of each input file -> ``readable``, or why it cannot be read.
        engine: engine and device, such as ``openvino on cpu``.
        engine_error: why the engine cannot be selected.
        offers_gpu: the worker was started with the resource GPU.
    """

    python: str
    program: str | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    store: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    engine: str = "none"
    engine_error: str | None = None
    offers_gpu: bool = False


def check_workers(client: Client, store: Store, todo: Sequence[Work]) -> None:
    """Check that every worker of a cluster by address has this program and can read the store and the first inputs.

    Local workers are not checked. Differences that may change the last digits of results are printed as notes.

    Raises:
        ClusterError: one line that names what is expected, and the workers that lack it.
    """
    if client.cluster is not None or not todo:
        return
    probe, content = f"{_PROBE}-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    files = sorted(file for file in todo[0].input_files if "://" not in file)
    store.write_bytes(probe, content.encode())
    try:
        here = _Worker(**_make_examine()(None, None, ()))
        workers = _ask_workers(client, here.python, store.locate("").rstrip("/"), probe, files)
    finally:
        store.remove(probe)

    def require(of: Callable[[_Worker], str | None], expected: str | None, what: str, advice: str) -> None:
        _refuse({address: of(worker) for address, worker in workers.items()}, expected, what, advice)

    mount = "mount it there under the same path"
    require(lambda w: w.python, here.python, f"Python {here.python}", "start workers with the same version")
    require(
        lambda w: w.program,
        here.program,
        "the version of affwild2 that this process runs",
        "install the same version there",
    )
    require(lambda w: w.store, content, f"workers that can read the store {store.url}", mount)
    for file in files:
        advice = mount if os.path.isabs(file) else "name it by its absolute path"
        require(lambda w, file=file: w.files.get(file), _READABLE, f"workers that can read {file}", advice)  # type: ignore[misc]
    require(lambda w: w.engine_error, None, "a valid AFFWILD2_ENGINE", "start it with another value")
    _note_differences(here, workers)


def may_be_other_version(error: BaseException) -> bool:
    """Whether an exception of a unit may come from a worker that lacks this program, or has another version of it."""
    return isinstance(error, ImportError | AttributeError | TypeError) or "unpickl" in str(error).lower()


def _refuse(found: Mapping[str, str | None], expected: str | None, what: str, advice: str) -> None:
    wrong = {address: got for address, got in found.items() if got != expected}
    if not wrong:
        return
    address, got = next(iter(sorted(wrong.items())))
    others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    raise ClusterError(
        printable(f"expected {what}, got {got or 'none'} on worker {address}{others}; {advice}, or end that worker")
    )


def _note_differences(here: _Worker, workers: Mapping[str, _Worker]) -> None:
    engines = defaultdict(list)
    for address, worker in sorted(workers.items()):
        engines[worker.engine].append(address)
        if worker.offers_gpu and "cuda" not in worker.engine:
            print_warning(
                f"note: worker {address} offers the resource GPU but has no GPU; it computes on its processor"
            )
        other = sorted(set(worker.libraries.items()) - set(here.libraries.items()))
        if other:
            names = ", ".join(f"{name} {version}" for name, version in other)
            print_warning(
                f"note: worker {address} has other library versions than this process: {names}; {_MAY_DIFFER}"
            )
    if len(engines) > 1:
        each = ", ".join(f"{engine} on {addresses[0]}" for engine, addresses in sorted(engines.items()))
        print_warning(f"note: workers compute with different engines ({each}); {_MAY_DIFFER}")


def _ask_workers(client: Client, python: str, store_url: str, probe: str, files: Sequence[str]) -> dict[str, _Worker]:
    """Return the facts of each worker by its address, without workers that do not answer because they are ending."""
    versions: Any = client.get_versions()
    versions = versions["workers"]
    found: dict[str, _Worker] = {}
    for address, version in versions.items():
        other = ".".join(dict(version["host"])["python"].split(".")[:2])
        if other != python:
            # The function is sent as byte code, which runs only on the same version of Python.
            found[address] = _Worker(python=other)
    asked = [address for address in versions if address not in found]
    answers = (
        client.run(_make_examine(), store_url, probe, tuple(files), workers=asked, on_error="return") if asked else {}
    )
    offered = client.scheduler_info(n_workers=-1)["workers"]
    for address, answer in answers.items():
        if isinstance(answer, dict):
            has_gpu = "GPU" in offered.get(address, {}).get("resources", {})
            found[address] = _Worker(**answer, offers_gpu=has_gpu)
        else:
            logger.info("worker %s did not answer: %r", address, answer)
    return found


def _make_digest() -> Callable[[], str | None]:
    """Return a function that makes the digest of the program, see ``_make_examine``."""

    def digest() -> str | None:
        """Digest of all sources that units are computed with."""
        import hashlib
        import importlib.util
        from pathlib import Path

        sources = hashlib.sha256()
        for package in ("data_contracts", "models", "tasks"):
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                return None
            root = Path(spec.submodule_search_locations[0])
            for path in sorted(root.rglob("*.py")):
                sources.update(f"{package}/{path.relative_to(root)}\n".encode() + path.read_bytes())
        return sources.hexdigest()[:12]

    return digest


def _make_examine() -> Callable[..., Any]:
    """Return a function that makes the values of ``_Worker``. It is sent as code: a worker may lack this module."""
    digest = _make_digest()

    def examine(store_url: str | None, probe: str | None, files: Sequence[str]) -> dict[str, object]:
        import importlib.metadata
        import os
        import sys

        def version_of(library: str) -> str:
            try:
                return importlib.metadata.version(library)
            except importlib.metadata.PackageNotFoundError:
                return "none"

        def see_store(url: str, name: str) -> str:
            from data_contracts.store.store import Store

            try:
                store = Store(url)
                content = store.read_bytes(name).decode()
                store.write_bytes(f"{name}-{os.getpid()}", b"")
                store.remove(f"{name}-{os.getpid()}")
                return content
            except Exception as error:
                return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

        def see_file(path: str) -> str:
            try:
                with open(path, "rb") as file:
                    file.read(1)
                return "readable"
            except OSError as error:
                return f"{error.strerror}"

        facts: dict[str, object] = {
            "python": ".".join(map(str, sys.version_info[:2])),
            "program": digest(),
            "libraries": {name: version_of(name) for name in ("av", "numpy", "openvino", "pyarrow", "torch")},
        }
        if facts["program"] is None:
            return facts
        if store_url and probe:
            facts["store"] = see_store(store_url, probe)
        facts["files"] = {path: see_file(path) for path in files}
        try:
            from models.engines.devices import default_device, default_engine

            facts |= {"engine": f"{default_engine()} on {default_device()}", "engine_error": None}
        except Exception as error:
            facts |= {"engine": "none", "engine_error": str(error)}
        return facts

    return examine
