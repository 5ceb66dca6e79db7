"""Stages of the extract flow."""
