"""Printing of commands: results on stdout, remarks dimmed on stderr."""

import json
import sys
from typing import Any

from rich.console import Console

from headway.errors import DataError


def note(text: str) -> None:
    """Print a remark on stderr. Only results go to stdout."""
    Console(stderr=True, highlight=False).print(text, style="dim", markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON. On a stdout that is not UTF-8, all characters outside ASCII are escaped."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    print(json.dumps(value, indent=2, ensure_ascii=encoding != "utf8"))


def read_stdin() -> str:
    """Text on standard input, in UTF-8 or the encoding of the terminal. Raises DataError for bytes in neither."""
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:  # replaced by a stream of text
        return sys.stdin.read()
    content = buffer.read()
    for encoding in ("utf-8", sys.stdin.encoding):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"standard input is neither UTF-8 nor {sys.stdin.encoding} text.")
