"""Where it runs: clusters and the settings of Prefect. Imports nothing of ours."""
