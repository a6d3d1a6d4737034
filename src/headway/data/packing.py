"""Several documents a row without leaks: best-fit-decreasing packing (Ding et al. 2024, arXiv 2404.10830)."""

import bisect
from collections.abc import Callable, Sequence
from typing import TypedDict

from headway.data.tokenize import Encoded


class PackedRow(TypedDict):
    """Equally long lists; segments number the documents of the row from 0."""

    input_ids: list[int]
    labels: list[int]
    segments: list[int]


def pack(encoded: Sequence[Encoded], length: int, grown: Callable[[int], float] | None = None) -> list[PackedRow]:
    """Put whole documents into as few rows of at most `length` tokens as best fit finds, longest first.

    Args: grown: how many tokens a document of so many becomes later, where that is more.
    Raises: ValueError if a document is longer than a row.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[float, int]] = []  # (room left, row), sorted
    for index in sorted(range(len(encoded)), key=lambda i: -len(encoded[i]["input_ids"])):
        size: float = len(encoded[index]["input_ids"])
        size = size if grown is None else grown(int(size))
        if size > length:
            raise ValueError(f"a document of {size} tokens does not fit into a row of {length}")
        place = bisect.bisect_left(open_rows, (size, -1))
        if place < len(open_rows):
            room, row = open_rows.pop(place)
        else:
            room, row = float(length), len(rows)
            rows.append([])
        rows[row].append(index)
        bisect.insort(open_rows, (room - size, row))
    return [row_of([encoded[index] for index in row]) for row in rows]


def row_of(documents: Sequence[Encoded]) -> PackedRow:
    """One row of documents, in the order given."""
    return PackedRow(
        input_ids=[token for document in documents for token in document["input_ids"]],
        labels=[label for document in documents for label in document["labels"]],
        segments=[number for number, document in enumerate(documents) for _ in document["input_ids"]],
    )
