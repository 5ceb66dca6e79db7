"""Removal of everything derived from a video."""
