"""HTML pages: reports, and the shell, tables and charts that all pages share."""
