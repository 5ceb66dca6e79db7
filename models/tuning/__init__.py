"""Tuning of decisions on validation subjects: windows, class bias, thresholds, calibration and weights of blends."""
