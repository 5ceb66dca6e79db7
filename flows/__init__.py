"""Composition: flows of stages, and the command line. Nothing here computes."""
