"""The ring, against numpy's polynomials and by enumeration; and what expressions are worth when somebody else reads them."""

import itertools
import random
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial as Dense

from headway.data.generated.polynomial import (
    DEGREE,
    MODULUS,
    SYMBOLS,
    add,
    compose,
    multiply,
    negate,
    polynomial_problems,
    random_expression,
)
from headway.errors import DataError

polynomials = st.tuples(*[st.integers(0, MODULUS - 1)] * DEGREE)


def reduced(dense: Dense) -> tuple[int, ...]:
    """Numpy's coefficients modulo 7 and X^5."""
    found = [round(c) % MODULUS for c in dense.coef][:DEGREE]
    return tuple(found + [0] * (DEGREE - len(found)))


@given(polynomials, polynomials)
def test_operations_are_those_of_numpy_modulo_7_and_x_to_the_5(p: tuple, q: tuple) -> None:
    dense_p, dense_q = Dense(numpy.array(p, float)), Dense(numpy.array(q, float))
    assert add(p, q) == reduced(dense_p + dense_q)
    assert negate(p) == reduced(-dense_p)
    assert multiply(p, q) == reduced(dense_p * dense_q)
    assert compose(p, q) == reduced(dense_p(dense_q))


@given(polynomials, polynomials, polynomials)
def test_laws_of_a_commutative_ring_hold(p: tuple, q: tuple, r: tuple) -> None:
    zero, one = (0,) * DEGREE, (1,) + (0,) * (DEGREE - 1)
    assert add(p, negate(p)) == zero and multiply(p, one) == p
    assert multiply(p, add(q, r)) == add(multiply(p, q), multiply(p, r))
    assert multiply(p, q) == multiply(q, p)
    assert compose(add(p, q), r) == add(compose(p, r), compose(q, r))


def test_composition_is_evaluation_at_every_point_where_nothing_is_dropped() -> None:
    def at(p: tuple, x: int) -> int:
        return sum(c * x**k for k, c in enumerate(p)) % MODULUS

    for a, b, c in itertools.product(range(MODULUS), repeat=3):
        p, q = (a, b, 2, 0, 0), (c, b, 3, 0, 0)  # degree 2 of degree 2 is 4
        assert all(at(compose(p, q), x) == at(p, at(q, x)) for x in range(MODULUS))


def test_the_text_of_an_expression_evaluates_to_its_value() -> None:
    for one in polynomial_problems(300, (1, 5), seed=3):
        assert parsed(one.text) == one.value
        example = one.example(pauses=2)
        assert example == {"prompt": one.text + "..=", "completion": "".join(map(str, one.value))}
        assert set(example["prompt"] + example["completion"]) <= set(SYMBOLS)


def test_an_expression_has_the_operations_it_says_and_all_operators_occur_alike() -> None:
    random_ = random.Random(0)
    for m in range(6):
        assert sum(symbol in "-+*@" for symbol in random_expression(m, random_).text) == m
    seen = Counter(next(s for s in random_expression(1, random_).text if s in "-+*@") for _ in range(4000))
    assert all(850 < count < 1150 for count in seen.values()) and len(seen) == 4


def test_problems_are_drawn_from_the_whole_range_and_the_same_seed_draws_the_same() -> None:
    problems = polynomial_problems(500, (1, 3), seed=0)
    assert Counter(one.operations for one in problems).keys() == {1, 2, 3}
    assert problems == polynomial_problems(500, (1, 3), seed=0)
    test = {one.text for one in polynomial_problems(500, (1, 3), seed=0, split="test")}
    assert not test & {one.text for one in problems}


@pytest.mark.parametrize("operations", [(0, 3), (4, 2)])
def test_a_range_without_operations_is_an_error(operations: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="a range from 1 on"):
        polynomial_problems(1, operations, 0)
    with pytest.raises(DataError, match="cannot have -1"):
        random_expression(-1, random.Random(0))


def parsed(text: str) -> tuple[int, ...]:
    """An evaluator that knows nothing of the generator: brackets, a leading minus, and one operator between operands."""

    def operand(at: int) -> tuple[tuple[int, ...], int]:
        if text[at] == "(":
            value, at = expression(at + 1)
            assert text[at] == ")"
            return value, at + 1
        return tuple(map(int, text[at : at + DEGREE])), at + DEGREE

    def expression(at: int) -> tuple[tuple[int, ...], int]:
        if text[at] == "-":
            value, at = operand(at + 1)
            return reduced(-Dense(numpy.array(value, float))), at
        value, at = operand(at)
        if at < len(text) and text[at] in "+*@":
            operator = text[at]
            other, at = operand(at + 1)
            p, q = Dense(numpy.array(value, float)), Dense(numpy.array(other, float))
            value = reduced({"+": lambda: p + q, "*": lambda: p * q, "@": lambda: p(q)}[operator]())
        return value, at

    value, end = expression(0)
    assert end == len(text)
    return value
