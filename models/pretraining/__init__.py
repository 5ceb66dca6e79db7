"""Training a backbone on labelled photos."""
