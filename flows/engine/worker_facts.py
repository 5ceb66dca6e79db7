"""What a worker of a cluster can tell of itself: its version of this program, its engine, what it sees of the disk.

The function that workers run is sent to them whole, for a worker may lack this very module.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

logger = logging.getLogger(__name__)
Facts = dict[str, Any]


def facts_here() -> Facts:
    """The facts of this process, without store and files."""
    return _make_tell()(None, None, ())


def facts_of_workers(client: Client, store_url: str, probe: str, files: Sequence[str]) -> dict[str, Facts]:
    """Facts of each worker, by its address. A worker that does not answer is left out: it is about to go.

    ``probe``: a file of the store, whose content is the fact ``store``; ``files``: paths, each a fact that is ``there``
    or says what is wrong.
    """
    here = facts_here()["python"]
    versions: Any = client.get_versions()
    versions = versions["workers"]
    found: dict[str, Facts] = {}
    for address, version in versions.items():
        python = ".".join(dict(version["host"])["python"].split(".")[:2])
        if python != here:
            # Code that is sent as it is runs on the same version only.
            found[address] = {"python": python}
    asked = [address for address in versions if address not in found]
    answers = (
        client.run(_make_tell(), store_url, probe, tuple(files), workers=asked, on_error="return") if asked else {}
    )
    offered = client.scheduler_info(n_workers=-1)["workers"]
    for address, facts in answers.items():
        if isinstance(facts, dict):
            found[address] = facts | {"offers_gpu": "GPU" in offered.get(address, {}).get("resources", {})}
        else:
            logger.info("worker %s did not answer: %r", address, facts)
    return found


def _make_tell() -> Callable[[str | None, str | None, Sequence[str]], Facts]:
    def tell(store_url: str | None, probe: str | None, files: Sequence[str]) -> Facts:
        import hashlib
        import importlib.metadata
        import importlib.util
        import os
        import sys
        from pathlib import Path

        def digest() -> str | None:
            """Of all sources that units are computed with."""
            sources = hashlib.sha256()
            for package in ("data_contracts", "models", "tasks"):
                spec = importlib.util.find_spec(package)
                if spec is None or not spec.submodule_search_locations:
                    return None
                root = Path(spec.submodule_search_locations[0])
                for path in sorted(root.rglob("*.py")):
                    sources.update(f"{package}/{path.relative_to(root)}\n".encode() + path.read_bytes())
            return sources.hexdigest()[:12]

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
                return "there"
            except OSError as error:
                return f"{error.strerror}"

        facts: Facts = {
            "python": ".".join(map(str, sys.version_info[:2])),
            "program": digest(),
            "libraries": {name: version_of(name) for name in ("av", "numpy", "openvino", "pyarrow", "torch")},
        }
        if facts["program"] is None:
            return facts
        if store_url and probe:
            facts["store"] = see_store(store_url, probe)
        facts |= {path: see_file(path) for path in files}
        try:
            from models.engines.devices import default_device, default_engine

            facts |= {"engine": f"{default_engine()} on {default_device()}", "engine_error": None}
        except Exception as error:
            facts |= {"engine": "none", "engine_error": str(error)}
        return facts

    return tell
