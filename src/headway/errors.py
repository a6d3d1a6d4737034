"""Exceptions for mistakes that a user can correct. The command line prints a single line and exits with code 2.

Every class also inherits a standard exception: `except ValueError` around a library call works as usual.
"""


class HeadwayError(Exception):
    """A mistake that the user can correct. The message names the mistake, the location and the remedy."""


class ConfigError(HeadwayError, ValueError):
    """A setting is unknown, has the wrong type, or contradicts another setting."""


class DataError(HeadwayError, ValueError):
    """An input file or data set cannot be used."""


class CheckpointError(HeadwayError, OSError):
    """A checkpoint is missing, damaged, or does not fit the model; an OSError, as from `from_pretrained` of transformers."""


class UnsupportedModelError(HeadwayError, NotImplementedError):
    """A trunk lacks a feature that Headway needs."""


def first_line(error: Exception) -> str:
    """First line of the message of a third-party error, or the name of the error if the message is empty."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
