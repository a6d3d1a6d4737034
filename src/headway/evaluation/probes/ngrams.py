"""Index of the n-grams of a large corpus: a sorted array of 64-bit hashes, 8 bytes a corpus token."""

from collections.abc import Iterable, Sequence

import numpy

BASE = numpy.uint64(0x9E3779B97F4A7C15)


class CorpusNgrams:
    """The n-grams of documents. No n-gram crosses a border between two documents.

    Hashes may collide: of q n-grams looked up among N, about q * N / 2**64 are false positives. With a million looked up among
    ten million, a false positive occurs once in 10**7 runs.
    """

    def __init__(self, documents: Iterable[Sequence[int]], length: int) -> None:
        tokens = [numpy.asarray(document, dtype=numpy.uint64) for document in documents]
        self.length = length
        self.tokens = sum(map(len, tokens))
        hashes = _hashes(numpy.concatenate(tokens) if tokens else numpy.zeros(0, numpy.uint64), length)
        ends = numpy.cumsum([len(document) for document in tokens])
        in_one_document = numpy.ones(len(hashes), dtype=bool)
        for end in ends[:-1]:  # n-grams that start in the last n - 1 tokens of a document run into the next document
            in_one_document[max(0, end - length + 1) : end] = False
        ordered = numpy.sort(hashes[in_one_document])  # numpy.unique takes 20 times as long
        self.hashes = ordered[numpy.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]

    def contains(self, tokens: Sequence[int]) -> list[bool]:
        """Membership of the n-grams of `tokens`, (len(tokens) - n + 1,)."""
        queries = _hashes(numpy.asarray(tokens, dtype=numpy.uint64), self.length)
        if not len(self.hashes):
            return [False] * len(queries)
        indices = numpy.searchsorted(self.hashes, queries).clip(max=len(self.hashes) - 1)
        return [bool(equal) for equal in self.hashes[indices] == queries]


def _hashes(tokens: numpy.ndarray, length: int) -> numpy.ndarray:
    """sum over k of mix(token k) * BASE ** k, modulo 2 ** 64, by n-gram."""
    starts = max(0, len(tokens) - length + 1)
    mixed = _mix(tokens)
    hashes = numpy.zeros(starts, dtype=numpy.uint64)
    for k in range(length - 1, -1, -1):
        hashes *= BASE
        hashes += mixed[k : k + starts]
    return _mix(hashes)


def _mix(values: numpy.ndarray) -> numpy.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014). Spreads small numbers over all bits."""
    values = values + BASE
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return values ^ (values >> numpy.uint64(31))
