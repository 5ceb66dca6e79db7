"""Commands that write or show HTML pages."""
