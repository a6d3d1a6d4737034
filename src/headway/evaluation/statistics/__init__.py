"""Confidence intervals and estimators."""
