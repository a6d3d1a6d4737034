"""Probes of a model: knowledge, use of the context, and copying. A probe is a file with `run(config)`."""
