"""Problems can be solved from their steps, and train and test never meet."""

import re

import pytest

from headway.data import word_problems
from headway.errors import DataError


@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_step_is_right_and_the_last_one_is_the_answer(level):
    for problem in word_problems("train", 500, level):
        *steps, final = problem["completion"].strip().split("\n")
        assert len(steps) == level
        carried = None
        for step in steps:
            left, operation, right, result = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step).groups()
            assert carried is None or left == carried
            assert eval(f"{left} {operation} {right}") == int(result)  # four operations on digits, matched just above
            assert right in re.findall(r"\d+", problem["prompt"])
            carried = result
        assert final == f"#### {carried}"


def test_no_test_question_is_in_train():
    train = {p["prompt"] for seed in range(3) for p in word_problems("train", 3000, 1, seed)}
    test = {p["prompt"] for seed in range(3) for p in word_problems("test", 500, 1, seed)}
    assert not train & test
    assert len(test) > 1000


def test_the_same_seed_draws_the_same_and_all_are_different():
    first, second = word_problems("train", 300, 2, 5), word_problems("train", 300, 2, 5)
    assert first == second != word_problems("train", 300, 2, 6)
    assert len({p["prompt"] for p in first}) == 300


def test_unknown_levels_and_splits_are_refused():
    with pytest.raises(DataError, match="levels 1, 2 and 3"):
        word_problems("train", 1, 4)
    with pytest.raises(DataError, match="train and test"):
        word_problems("dev", 1)
