"""HTML pages, tables and plots."""
