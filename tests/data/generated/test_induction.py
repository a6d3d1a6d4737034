"""Names of two tokens: the second follows from the first and the story so far, and from nothing else."""

import random

import pytest

from headway.data.generated.induction import (
    names_of_two_tokens,
    names_somebody_twice,
    renamed,
    renamed_stories,
    syllables,
    words_of,
)
from headway.data.generated.stories import generate_stories
from headway.errors import DataError


def test_no_name_of_the_test_is_one_of_training_though_its_tokens_are() -> None:
    training, test = names_of_two_tokens(10)
    assert len(training) == 80 and len(test) == 20 and not set(training) & set(test)
    firsts, seconds = syllables(10)
    assert {first for first, _ in training} == set(firsts) and {second for _, second in training} == set(seconds)
    assert not set(firsts) & set(seconds)


def test_places_are_the_second_tokens_of_names_that_stood_before() -> None:
    words, places = renamed(words_of("Lily met Tom. Tom saw Lily, and Lily ran."), [("A", "a"), ("B", "b")], random.Random(0))
    one, other = (("A", "a"), ("B", "b")) if words[0] == "A" else (("B", "b"), ("A", "a"))
    assert words == [*one, "met", *other, ".", *other, "saw", *one, ",", "and", *one, "ran", "."]
    assert places == [7, 10, 14]


def test_a_second_token_follows_from_the_first_in_its_own_story_and_not_across_stories() -> None:
    training, _ = names_of_two_tokens(5)
    stories = renamed_stories(generate_stories(60, 0), training, seed=0)
    partners: dict[str, set[str]] = {}
    for words, places in stories:
        inside: dict[str, set[str]] = {}
        for place in places:
            inside.setdefault(words[place - 1], set()).add(words[place])
        assert all(len(seconds) == 1 for seconds in inside.values())
        for first, seconds in inside.items():
            partners.setdefault(first, set()).update(seconds)
    assert min(map(len, partners.values())) > 1


def test_a_cut_story_keeps_only_places_inside_it() -> None:
    training, _ = names_of_two_tokens(5)
    for words, places in renamed_stories(generate_stories(20, 0), training, seed=0, length=60):
        assert len(words) <= 60 and places and max(places) < 60


def test_what_cannot_be_renamed_is_an_error() -> None:
    with pytest.raises(DataError, match="No story names"):
        renamed_stories(["A stone lay there."], [("A", "a")], seed=0)
    with pytest.raises(DataError, match="use more syllables"):
        renamed(["Lily", "Tom"], [("A", "a"), ("A", "b")], random.Random(0))
    with pytest.raises(DataError, match="syllables on each side"):
        syllables(10_000)
    assert names_somebody_twice(["Lily", "and", "Lily"]) and not names_somebody_twice(["Lily", "and", "Tom"])
