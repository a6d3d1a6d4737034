"""Generated tasks and texts."""
