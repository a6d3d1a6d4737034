"""Training stages, a file for every stage."""
