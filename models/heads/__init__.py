"""Heads: layers, losses, metrics, fitting and recipes."""
