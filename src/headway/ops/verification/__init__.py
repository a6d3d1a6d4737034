"""Verification rules: decide which drafts are accepted and sample the bonus token."""
