"""The command line `headway`: a table of commands, and one function that runs any of them."""

from headway.cli.main import main

__all__ = ["main"]
