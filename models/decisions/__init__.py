"""From outputs to decisions: smoothing, thresholds, post-processing, blends, evaluation."""
