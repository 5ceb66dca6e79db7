"""Temporal heads: networks over windows of a subject's frames."""
