"""Extractive fragments (Grusky et al. 2018, arXiv 1804.11283, section 4): spans of a text that occur in the sources.

A fragment here is the longest match at the first word of the fragment. The paper's pseudocode skips words already compared, and
finds a shorter match in rare repetitions ("a a a b" searched for "a a b").
"""

import re
from collections.abc import Hashable, Sequence

WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return WORD.findall(text.lower())


def longest_matches(text: Sequence[Hashable], sources: Sequence[Sequence[Hashable]]) -> list[int]:
    """By position of the text, the length of the longest span from there that occurs in a source, in words.

    The running time grows with the number of pairs of equal words, a small number for answers and passages.
    """
    occurrences: dict[Hashable, list[tuple[int, int]]] = {}
    for number, source in enumerate(sources):
        for position, word in enumerate(source):
            occurrences.setdefault(word, []).append((number, position))
    longest = [0] * len(text)
    # (source, position) -> length of the match between that position and the current position of the text
    lengths: dict[tuple[int, int], int] = {}
    for start in range(len(text) - 1, -1, -1):
        lengths = {(n, position): 1 + lengths.get((n, position + 1), 0) for n, position in occurrences.get(text[start], ())}
        longest[start] = max(lengths.values(), default=0)
    return longest


def fragments(matches: Sequence[int]) -> list[int]:
    """Lengths of the fragments, from left to right: the longest match, then the next match behind."""
    lengths, position = [], 0
    while position < len(matches):
        if matches[position]:
            lengths.append(matches[position])
        position += max(matches[position], 1)
    return lengths


def coverage(matches: Sequence[int]) -> float:
    """Share of words in fragments, sum(f) / |text|."""
    return sum(fragments(matches)) / len(matches)


def density(matches: Sequence[int]) -> float:
    """Mean length of the fragment around a word, sum(f ** 2) / |text|."""
    return sum(length**2 for length in fragments(matches)) / len(matches)


def copied(matches: Sequence[int], length: int) -> float:
    """Share of words in spans of at least `length` words that occur in a source. Length 1 gives the coverage."""
    return sum(covered([match >= length for match in matches], length)) / len(matches)


def covered(starts: Sequence[bool], length: int) -> list[bool]:
    """True for positions fewer than `length` after a start."""
    inside, end = [], 0
    for position, start in enumerate(starts):
        end = position + length if start else end
        inside.append(position < end)
    return inside
