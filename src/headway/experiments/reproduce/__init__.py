"""Published small-scale experiments, repeated."""
