"""What tuning fits and compares for one branch: class bias, folds of videos, calibration, and the choice."""
