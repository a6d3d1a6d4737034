"""The index finds what a set of tuples finds."""

import numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.evaluation.probes.ngrams import CorpusNgrams

tokens = st.lists(st.integers(0, 3), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(tokens, max_size=5), tokens, st.integers(1, 4))
def test_ngrams_are_found_as_in_a_set_and_never_across_documents(documents: list[list[int]], text: list[int], n: int) -> None:
    known = {tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1)}
    index = CorpusNgrams(documents, n)
    assert index.contains(text) == [tuple(text[i : i + n]) in known for i in range(len(text) - n + 1)]
    assert len(index.hashes) == len(known) and index.tokens == sum(map(len, documents))


def test_among_a_million_ngrams_of_a_large_vocabulary_none_is_found_that_is_not_there() -> None:
    draw = numpy.random.default_rng(0)
    index = CorpusNgrams([draw.integers(0, 128_000, 1_000_000)], 8)
    assert len(index.hashes) == 1_000_000 - 7
    assert not any(index.contains(draw.integers(0, 128_000, 100_000)))


def test_neighbouring_tokens_and_their_order_count() -> None:
    index = CorpusNgrams([[0, 1, 2, 3]], 3)
    assert index.contains([2, 1, 0, 1, 2, 3]) == [False, False, True, True]
