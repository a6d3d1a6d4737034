"""Modules that several head families share."""
