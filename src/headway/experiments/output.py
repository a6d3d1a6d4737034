"""Files and tables that all experiments write."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from headway.files import replacing_folder, write_text


def settings_json(config: Any) -> dict[str, Any]:
    """Fields of a config as JSON values, None included."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config), default=str)))


def write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a line per row, with the union of all keys as columns. Lists stay lists."""
    import pyarrow  # installed with datasets
    from pyarrow import parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing_folder(path.parent) as folder:
        parquet.write_table(pyarrow.Table.from_pylist([{n: row.get(n) for n in names} for row in rows]), folder / path.name)


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows of data as JSONL. An equal file stays untouched: tokenized rows are cached by the time of the file."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def terminal_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> Table:
    """Table of plain text. The first column wraps in a narrow terminal.

    Args:
        words: headings of further columns that are left-aligned.
    """
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    for column, name in enumerate(headings):
        table.add_column(name, justify="left" if not column or name in words else "right", no_wrap=bool(column))
    for row in rows:
        table.add_row(*map(escape, row))
    return table
