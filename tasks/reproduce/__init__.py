"""Tables 1 to 6 of the paper: their published values, and the heads that are fitted to reproduce them."""
