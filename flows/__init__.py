"""Flows, which run stages in order, and the command line. The computations are in tasks and models."""
