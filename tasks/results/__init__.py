"""Stages that write submissions and predictions, scores of heads, and what removes them."""
