"""Stages of the flows, one per file: read datasets, call models, write datasets. Workers import them; no Prefect."""
