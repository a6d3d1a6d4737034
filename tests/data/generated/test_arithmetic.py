"""Whatever a drill says about numbers is true, and it says it differently from the word problems."""

import itertools
import random
import re

import pytest

from headway.data import word_problems
from headway.data.generated.arithmetic import KINDS, fact, generate_drills, in_words

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
# what a line says, and what must hold of its numbers
CLAIMS = [
    (r"half of (\d+) is (\d+)", lambda a, b: a == 2 * b),
    (r"(?:double|twice) (\d+) is (\d+)", lambda a, b: b == 2 * a),
    (r"a third of (\d+) is (\d+)", lambda a, b: a == 3 * b),
    (r"a quarter of (\d+) is (\d+)", lambda a, b: a == 4 * b),
    (r"(\d+) times (\d+) is (\d+)", lambda a, b, c: a * b == c),
    (r"(\d+) shared by (\d+) is (\d+)", lambda a, b, c: a == b * c),
    (r"(\d+) is greater than (\d+)", lambda a, b: a > b),
    (r"(\d+) is less than (\d+)", lambda a, b: a < b),
    (r"(\d+) is (\d+) more than (\d+)", lambda a, b, c: a == b + c),
    (r"(\d+) is (\d+) less than (\d+)", lambda a, b, c: a == c - b),
    (r"From (\d+) to (\d+) it is (\d+)\.", lambda a, b, c: b - a == c),
    (r"After (\d+) comes (\d+)\.", lambda a, b: b == a + 1),
    (r"Before (\d+) comes (\d+)\.", lambda a, b: b == a - 1),
]


@pytest.fixture(scope="module")
def drills():
    return generate_drills(4000, seed=0)


def holds(left, operation, right, result):
    return {"+": left + right, "-": left - right, "*": left * right, "/": left / right if right else None}[operation] == result


def test_every_equation_is_right(drills):
    equations = [tuple(map(str, found)) for drill in drills for found in EQUATION.findall(drill)]
    assert len(equations) > 20_000 and {found[1] for found in equations} == set("+-*/")
    for left, operation, right, result in equations:
        assert holds(int(left), operation, int(right), int(result)), (left, operation, right, result)


def test_every_claim_in_words_is_right(drills):
    seen = set()
    for line in (line for drill in drills for line in drill.split("\n")):
        for pattern, true in CLAIMS:
            if found := re.fullmatch(pattern, line):
                assert true(*map(int, found.groups())), line
                seen.add(pattern)
    assert len(seen) == len(CLAIMS)


def test_a_chain_goes_on_from_its_last_result():
    chain = next(kind for kind in KINDS if kind.__name__ == "_chain")
    for seed in range(200):
        for steps in chain(random.Random(seed)).split("\n\n"):
            found = EQUATION.findall(steps)
            assert all(before[3] == after[0] for before, after in itertools.pairwise(found))
            if said := re.search(r"The result is (\d+)", steps):
                assert said[1] == found[-1][3]


def test_sentences_tell_the_numbers_of_their_equation():
    sentences = next(kind for kind in KINDS if kind.__name__ == "_sentences")
    for seed in range(300):
        for line in re.split(r"\n+", sentences(random.Random(seed))):
            before, equation, after = re.fullmatch(r"(.*?\.) (\d+ [-+*/] \d+ = \d+)\. (.*)", line).groups()
            left, _, right, result = EQUATION.fullmatch(equation).groups()
            assert sorted(re.findall(r"\d+", before)) == sorted([left, right])
            assert re.findall(r"\d+", after) == [result]


def test_facts_keep_their_bounds():
    random_ = random.Random(0)
    for _ in range(3000):
        left, operation, right, result = fact(random_)
        assert result >= 0
        if operation in "+-":
            assert max(left, right) <= 100
        else:
            assert right <= 12 and min(left, result) <= 12


def test_numbers_in_words():
    assert [in_words(n) for n in (0, 13, 20, 42, 98)] == ["zero", "thirteen", "twenty", "forty-two", "ninety-eight"]


def test_the_seed_decides_and_all_are_different(drills):
    assert len(set(drills)) == 4000
    assert generate_drills(50, seed=0) == drills[:50] != generate_drills(50, seed=1)


def test_drills_contain_no_sentence_and_no_form_of_the_word_problems(drills):
    asked = "\n".join(drills)
    assert "Question" not in asked and "Answer" not in asked and "####" not in asked and "?" not in asked
    for problem in word_problems("test", 200, 2):
        story, question = problem["prompt"].removeprefix("Question: ").removesuffix("\nAnswer:"), problem["prompt"]
        assert question not in asked
        assert story not in asked
