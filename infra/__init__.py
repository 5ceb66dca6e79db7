"""Where it runs: clusters and the settings of Prefect. Imports nothing of ours."""

import os

# Read when distributed is imported; Prefect's logging would else show every step of its start and end.
os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "critical")
