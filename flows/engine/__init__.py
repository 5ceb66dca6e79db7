"""How a flow runs: stages, fan-out to Dask, console, summary, worker checks."""
