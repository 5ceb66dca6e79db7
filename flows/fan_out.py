"""One stage, many pieces of work: submit what is missing to Dask, count as results arrive, lose nothing.

Imported only where a cluster is opened: distributed takes a second to import.
"""

from collections.abc import Sequence
from typing import Any

from distributed import Client, as_completed

from data_contracts.store import Store
from flows.console import progress_of
from flows.stage_summary import RunWork, StageSummary, Work, report_crash
from infra.clusters import unit_resources

_RETRIES = 1


def fan_out(
    client: Client, store: Store, todo: Sequence[Work], *, run: RunWork, compute: Any, summary: StageSummary
) -> None:
    """Run every piece of work on the cluster; one that fails is noted with its cause and stops nobody else.

    Raises:
        StoreError: the store cannot be written to; what is not done yet is given up.
    """
    # Names may hold what a message between processes must not: half of a letter.
    by_key = {f"{summary.stage}-{work.fingerprint[:16]}-{work.name!a}": work for work in todo}
    resources = unit_resources(client)
    futures = [
        client.submit(run, store.url, compute, work, key=key, pure=False, retries=_RETRIES, resources=resources)
        for key, work in by_key.items()
    ]
    with progress_of(summary.stage, len(todo)) as advance:
        arriving = as_completed(futures)
        # Futures that are kept would be computed again when a worker dies after it has answered.
        del futures
        for future in arriving:
            work = by_key[future.key]
            answered = future.status == "finished"
            report = future.result() if answered else report_crash(store, work, future.exception())
            future.release()
            summary.add(report)
            advance(len(summary.failures))
