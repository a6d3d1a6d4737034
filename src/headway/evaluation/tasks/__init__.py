"""Tasks of `headway eval`."""
