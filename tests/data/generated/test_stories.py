"""Stories are different, repeatable, whole, and count right."""

import re

import pytest

from headway.data.generated.stories import BOYS, GIRLS, PLOTS, generate_stories


@pytest.fixture(scope="module")
def stories():
    return generate_stories(3000, seed=0)


def test_all_are_different_and_the_seed_decides(stories):
    assert len(set(stories)) == 3000
    assert generate_stories(50, seed=0) == stories[:50] != generate_stories(50, seed=1)


def test_nothing_of_the_grammar_is_left_and_sentences_are_whole(stories):
    for story in stories:
        assert not re.search(r"[\[\]{}|]|  |\.\.|,\.|None| ,", story), story
        assert story.count('"') % 2 == 0
        for paragraph in story.split("\n\n"):
            assert paragraph[0].isupper() or paragraph[0] == '"'
            assert paragraph[-1] in '.!?"', paragraph


def test_articles_fit_their_words(stories):
    for story in stories:
        assert not re.search(r"\b[Aa] [aeiou](?!ne\b|nce\b)", story), story
        assert not re.search(r"\b[Aa]n [^aeiou\s]", story), story


def test_pronouns_fit_the_hero(stories):
    for story in stories:
        if found := re.search(r"(?:boy|girl) named (\w+)\. (He|She)\b", story):
            assert found[2] == ("He" if found[1] in BOYS else "She")
            assert found[1] in BOYS + GIRLS


def test_sums_in_stories_are_right(stories):
    sums = [found for story in stories for found in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", story)]
    assert len(sums) > 100
    for left, operation, right, result in sums:
        assert int(left) + (int(right) if operation == "+" else -int(right)) == int(result) > 0


def test_every_plot_is_told(stories):
    for _, sentences in PLOTS:
        pattern = re.search(r"[a-z ]{12,}", re.sub(r"\[.*?\]|\{.*?\}", "#", " ".join(sentences)))[0]
        assert any(pattern in story for story in stories), pattern
