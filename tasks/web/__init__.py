"""The web page of a backbone: its files, and the package from npm that runs networks in a browser."""
