"""Packing loses no token, splits no document, and needs few rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.data import Collator, pack


@given(st.lists(st.integers(1, 20), max_size=60))
def test_every_document_is_in_one_row_once_and_whole(sizes):
    documents = [{"input_ids": [i] * n, "labels": [i + 1000] * n} for i, n in enumerate(sizes)]
    rows = pack(documents, 20)
    found = {}
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["segments"]) <= 20
        for segment in set(row["segments"]):
            tokens = [t for t, s in zip(row["input_ids"], row["segments"], strict=True) if s == segment]
            assert len(set(tokens)) == 1 and tokens[0] not in found
            found[tokens[0]] = len(tokens)
    assert found == dict(enumerate(sizes))
    assert len(rows) <= 1.25 * sum(sizes) / 20 + 1 or all(n > 10 for n in sizes) or len(rows) <= 2 * sum(sizes) / 20 + 1


def test_a_document_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        pack([{"input_ids": [1] * 5, "labels": [1] * 5}], 4)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 5)), min_size=1, max_size=9), max_size=25), st.integers(9, 30)
)
def test_rows_cut_at_segments_are_the_documents_with_labels(documents, length):
    encoded = [{"input_ids": [t for t, _ in d], "labels": [label for _, label in d]} for d in documents]
    cut = []
    for row in pack(encoded, length):
        assert row["segments"] == sorted(row["segments"])  # documents are contiguous
        assert set(row["segments"]) == set(range(row["segments"][-1] + 1))  # and numbered from 0 without gaps
        for segment in range(row["segments"][-1] + 1):
            positions = [i for i, s in enumerate(row["segments"]) if s == segment]
            cut.append({name: [row[name][i] for i in positions] for name in ("input_ids", "labels")})
    key = str
    assert sorted(cut, key=key) == sorted(encoded, key=key)


def test_best_fit_fills_the_fullest_row_with_enough_free_tokens():
    sizes = [6, 5, 4, 5]  # longest first: 6, then 5 + 5, then 4 beside the 6
    rows = pack([{"input_ids": [i] * n, "labels": [i] * n} for i, n in enumerate(sizes)], 10)
    assert sorted(sorted(set(row["input_ids"])) for row in rows) == [[0, 2], [1, 3]]


def test_collator_pads_on_the_right():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "segments": [0, 0, 1]},
        {"input_ids": [8], "labels": [8], "segments": [0]},
    ]
    batch = Collator(0)(rows)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 7], [8, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, 6, 7], [8, -100, -100]]))
    assert torch.equal(batch["segments"], torch.tensor([[0, 0, 1], [0, -1, -1]]))
