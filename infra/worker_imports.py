"""Imported first by the process that local workers are forked from."""

from infra.imports import leave_out_pandas

leave_out_pandas()
