"""Arrays in, arrays out: detector, backbones, heads, losses, metrics, thresholds, smoothing. Imports nothing of ours."""
