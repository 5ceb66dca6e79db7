"""Feature networks: registry, weights, CPU and GPU engines."""
