"""Infrastructure: Dask clusters, worker processes, settings of Prefect."""

import os

# distributed reads this at import. Otherwise Prefect's logging would show every step of its start and end.
os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "critical")
