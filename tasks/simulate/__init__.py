"""Simulate a data set with the layout, quirks and statistics of Aff-Wild2."""
