"""Which device a network runs on."""

import torch


def default_device() -> str:
    """``cuda`` where this process sees a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
