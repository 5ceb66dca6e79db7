"""Arrays in, arrays out: detector, backbones, heads, metrics, smoothing. Imports nothing of ours."""
