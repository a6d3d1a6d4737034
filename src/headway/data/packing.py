"""Packed rows of several documents: best-fit-decreasing packing (Ding et al. 2024, arXiv 2404.10830)."""

import bisect
from collections.abc import Callable, Sequence
from typing import TypedDict

from headway.data.tokenize import Encoded


class PackedRow(TypedDict):
    """Lists of equal length; segments number the documents of the row from 0."""

    input_ids: list[int]
    labels: list[int]
    segments: list[int]


def pack(encoded: Sequence[Encoded], max_length: int, max_denoised_length: Callable[[int], float] | None = None) -> list[PackedRow]:
    """Rows of whole documents, few by best fit, longest document first.

    Args:
        encoded: the documents.
        max_length: tokens of a row.
        max_denoised_length: tokens that a document of n tokens can become later.
    Raises:
        ValueError: a document is longer than a row.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[float, int]] = []  # (free tokens, row), sorted
    for index in sorted(range(len(encoded)), key=lambda i: -len(encoded[i]["input_ids"])):
        size: float = len(encoded[index]["input_ids"])
        size = size if max_denoised_length is None else max_denoised_length(int(size))
        if size > max_length:
            raise ValueError(f"a document of {size} tokens does not fit into a row of {max_length}")
        best = bisect.bisect_left(open_rows, (size, -1))
        if best < len(open_rows):
            free, row = open_rows.pop(best)
        else:
            free, row = float(max_length), len(rows)
            rows.append([])
        rows[row].append(index)
        bisect.insort(open_rows, (free - size, row))
    return [row_of([encoded[index] for index in row]) for row in rows]


def row_of(documents: Sequence[Encoded]) -> PackedRow:
    """A row of documents, in the order given."""
    return PackedRow(
        input_ids=[token for document in documents for token in document["input_ids"]],
        labels=[label for document in documents for label in document["labels"]],
        segments=[number for number, document in enumerate(documents) for _ in document["input_ids"]],
    )
