"""Probes of a model: knowledge, use of the context, and copying. One probe a file, each with `run(config)`."""
