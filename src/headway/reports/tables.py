"""Tables for the terminal. Cells are plain text: square brackets are printed, never read as markup."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> None:
    """Print a table to stdout, with remarks below. The first column is left-aligned, the rest right-aligned."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(soft_wrap=True)
    console.width = max(console.width, _width(headings, rows))
    console.print(table)
    for remark in remarks:
        console.print(Text(remark))


def framed_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """The text of a table with a frame and left-aligned columns."""
    table = Table(*headings, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False)
    console.width = max(console.width, _width(headings, rows))
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _width(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters of the widest line. A pipe has no width, and a table is never wrapped or cut."""
    longest = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return sum(longest) + 3 * len(longest) + 1
