"""The columns of every dataset of the store and of every table of results: type, unit, range, meaning."""
