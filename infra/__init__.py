"""Infrastructure: Dask clusters, worker processes, logs and metrics."""

import os

from data_contracts.settings import LOG_FORMAT

# distributed reads this at import. Otherwise Prefect's logging would show every step of its start and end.
os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "critical")
# Also in the process that workers are forked from, which imports this package before it logs anything.
if os.environ.get(LOG_FORMAT) == "json":
    from infra.json_logs import log_as_json

    log_as_json()
