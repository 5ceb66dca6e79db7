"""Faces of images: detection, features, outputs, and their predictions."""
