"""Stages that write submissions, predictions and reports."""
