"""What the verbs print: results on stdout, everything else dimmed on stderr."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def say(text: str) -> None:
    """A remark to the person at the terminal, on stderr so that stdout stays clean for pipes."""
    Console(stderr=True, highlight=False).print(text, style="dim", markup=False, soft_wrap=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """Lines of cells as a table, as wide as they need."""
    drawn = Table(*headings, title=title or None, title_justify="left")
    for row in rows:
        drawn.add_row(*row)
    console = Console(markup=False)
    longest = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    console.width = max(console.width, sum(longest) + 3 * len(longest) + 1)  # a pipe has no width to wrap at
    with console.capture() as caught:
        console.print(drawn)
    return caught.get().rstrip()
