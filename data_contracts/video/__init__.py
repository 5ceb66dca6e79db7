"""Video files: frame index, decoding, limits, folders."""
