"""Stages of the fit flow."""
