"""Published weight files: catalogue, conversion, safe reading, export."""
