"""What the verbs print: results on stdout, everything else dimmed on stderr."""

from rich.console import Console


def say(text: str) -> None:
    """A remark to the person at the terminal, on stderr so that stdout stays clean for pipes."""
    Console(stderr=True, highlight=False).print(text, style="dim", markup=False, soft_wrap=True)
