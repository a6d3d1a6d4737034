"""Benchmarks of training steps and decoding."""
