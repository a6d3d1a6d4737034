"""Verification rules, one file each: accept a prefix (or a path) of the drafts and sample the bonus token."""
