"""The command line `headway`: a table of commands, and the function that runs a command."""

from headway.cli.main import main

__all__ = ["main"]
