"""The few exceptions that a user's mistake can raise; the command line prints them as one line and exits with code 2."""


class HeadwayError(Exception):
    """Something the user can mend; the message says what was wrong, where, and what to do."""


class ConfigError(HeadwayError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class DataError(HeadwayError):
    """An input file or data set cannot be used as it is."""


class CheckpointError(HeadwayError):
    """A checkpoint is missing, damaged, or does not fit what it is attached to."""


class UnsupportedModelError(HeadwayError):
    """A trunk lacks something that Headway needs."""


def first_line(error: Exception) -> str:
    """What a foreign error says, without the pages that may follow; its name where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
