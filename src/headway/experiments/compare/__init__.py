"""Comparisons of training variants, paired by seed."""
