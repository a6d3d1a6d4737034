"""The books close only where each tensor has one fate, and the fate is true."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import CheckpointError
from headway.interop import ConversionReport, TensorOutcome

NAMES = st.sets(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8)


@given(NAMES)
def test_a_copy_under_the_same_names_closes(names):
    account = ConversionReport.from_outcomes(names, [TensorOutcome(name, (name,)) for name in names], names, "there")
    assert not account.renamed and not account.left_out


def test_it_says_what_was_renamed_split_and_left_out():
    fates = [TensorOutcome("a", ("a",)), TensorOutcome("b", ("c", "d")), TensorOutcome("e", reason="tied to a")]
    account = ConversionReport.from_outcomes("abe", fates, ["a", "c", "d"], "there")
    assert account.renamed == {"b": ("c", "d")} and account.left_out == {"e": "tied to a"}
    assert str(account).splitlines() == [
        "1 tensors written under their names, 1 under others, 1 left out",
        "  left out: e: tied to a",
    ]


@pytest.mark.parametrize(
    "source, fates, present, said",
    [
        ("ab", [TensorOutcome("a", ("a",))], "a", "not accounted for: b"),
        ("a", [TensorOutcome("a", ("a",)), TensorOutcome("b", ("b",))], "ab", "never there: b"),
        ("a", [TensorOutcome("a", ("a",)), TensorOutcome("a", ("b",))], "ab", "accounted for twice: a"),
        ("ab", [TensorOutcome("a", ("a",)), TensorOutcome("b")], "a", "left out for no reason: b"),
        ("ab", [TensorOutcome("a", ("a",)), TensorOutcome("b", ("b",))], "a", "missing: b"),
        ("ab", [TensorOutcome("a", ("c",)), TensorOutcome("b", ("c",))], "c", "written by two tensors: c"),
        ("a", [TensorOutcome("a", ("a",))], "ax", "of unknown origin: x"),
    ],
)
def test_books_that_do_not_balance_are_an_error_that_names_the_tensor(source, fates, present, said):
    with pytest.raises(CheckpointError, match=said):
        ConversionReport.from_outcomes(source, fates, present, "there")
