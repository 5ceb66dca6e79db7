"""Whether the workers of a cluster by address can do the work: before the first unit, one line instead of 600 crashes.

What a worker can tell of itself is in ``worker_facts``.
"""

import os
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client

from data_contracts.errors import printable
from data_contracts.store.store import Store
from flows.engine.console import print_error
from flows.engine.stage_summary import Work
from flows.engine.worker_facts import facts_here, facts_of_workers
from infra.clusters import ClusterError

_PROBE = ".worker_check"
_LIBRARIES_MATTER = "results may differ in the last digits"


def check_workers(client: Client, store: Store, todo: Sequence[Work]) -> None:
    """That every worker of a cluster by address has this program and sees the store and the first files of the work.

    Local workers do. What does not stop the work, but may change last digits of results, is a note.

    Raises:
        ClusterError: one line that names what is expected, and the workers that lack it.
    """
    if client.cluster is not None or not todo:
        return
    probe, content = f"{_PROBE}-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    files = sorted(file for file in todo[0].input_files if "://" not in file)
    store.write_bytes(probe, content.encode())
    try:
        here = facts_here()
        found = facts_of_workers(client, store.locate("").rstrip("/"), probe, files)
    finally:
        store.remove(probe)
    _refuse(found, "python", here["python"], "Python")
    _refuse(
        found, "program", here["program"], "affwild2 of the version that runs here", "install the same version there"
    )
    _refuse(found, "store", content, f"workers that see the store {store.url}", "mount it there under the same path")
    for file in files:
        advice = "mount it there under the same path" if os.path.isabs(file) else "name it by its absolute path"
        _refuse(found, file, "there", f"workers that see {file}", advice)
    _refuse(found, "engine_error", None, "a setting that workers can follow", "start them with another one")
    _note_differences(here, found)


def explains(error: BaseException) -> bool:
    """Whether an exception of a unit may come from a worker that lacks this program, or has another version of it."""
    return isinstance(error, ImportError | AttributeError | TypeError) or "unpickl" in str(error).lower()


def _refuse(found: Mapping[str, dict[str, Any]], fact: str, expected: object, what: str, advice: str = "") -> None:
    wrong = {address: facts.get(fact) for address, facts in found.items() if facts.get(fact) != expected}
    if not wrong:
        return
    address, got = next(iter(sorted(wrong.items())))
    others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    said = f" {expected}" if fact == "python" else ""
    advice = advice or "start workers with the same one"
    raise ClusterError(
        printable(
            f"expected {what}{said}, got {got or 'none'} on worker {address}{others}; {advice}, or end that worker"
        )
    )


def _note_differences(here: Mapping[str, Any], found: Mapping[str, dict[str, Any]]) -> None:
    engines = defaultdict(list)
    for address, facts in sorted(found.items()):
        engines[facts["engine"]].append(address)
        if facts["offers_gpu"] and "cuda" not in facts["engine"]:
            print_error(f"note: worker {address} offers the resource GPU but sees none; it computes on its processor")
        other = sorted(set(facts["libraries"].items()) - set(here["libraries"].items()))
        if other:
            names = ", ".join(f"{name} {version}" for name, version in other)
            print_error(f"note: worker {address} has other libraries than there are here: {names}; {_LIBRARIES_MATTER}")
    if len(engines) > 1:
        each = ", ".join(f"{engine} on {addresses[0]}" for engine, addresses in sorted(engines.items()))
        print_error(f"note: workers compute with different engines ({each}); {_LIBRARIES_MATTER}")
