"""Arithmetic of polynomials in F7[X]/(X^5) as expressions with answers (Gloeckle et al. 2024, arXiv 2404.19737, section 4.2).

A polynomial is a tuple of five coefficients from 0 to 6, the constant first. Operations: unary negation, addition, multiplication
and composition, modulo X^5. Composition applies to the representatives of degree below 5, because the ring defines no composition.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from headway.errors import DataError

MODULUS = 7
DEGREE = 5  # X^5 = 0
Polynomial = tuple[int, ...]

NEGATE, ADD, MULTIPLY, COMPOSE = "-", "+", "*", "@"
OPERATORS = (NEGATE, ADD, MULTIPLY, COMPOSE)
EQUALS, PAUSE = "=", "."
SYMBOLS = (*map(str, range(MODULUS)), *OPERATORS, "(", ")", EQUALS, PAUSE)


def negate(p: Polynomial) -> Polynomial:
    return tuple(-a % MODULUS for a in p)


def add(p: Polynomial, q: Polynomial) -> Polynomial:
    return tuple((a + b) % MODULUS for a, b in zip(p, q, strict=True))


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    return tuple(sum(p[i] * q[k - i] for i in range(k + 1)) % MODULUS for k in range(DEGREE))


def compose(p: Polynomial, q: Polynomial) -> Polynomial:
    """p(q(X)), by Horner's rule."""
    found: Polynomial = (0,) * DEGREE
    for coefficient in reversed(p):
        found = multiply(found, q)
        found = ((found[0] + coefficient) % MODULUS, *found[1:])
    return found


BINARY: dict[str, Callable[[Polynomial, Polynomial], Polynomial]] = {ADD: add, MULTIPLY: multiply, COMPOSE: compose}


@dataclass(frozen=True)
class Expression:
    """An expression: text with one symbol a token, value, and number of operations."""

    text: str
    value: Polynomial
    operations: int

    def example(self, pauses: int = 0) -> dict[str, str]:
        """Prompt up to the equals sign, with pause tokens before it (Goyal et al. 2023, arXiv 2310.02226), and the answer."""
        return {"prompt": self.text + PAUSE * pauses + EQUALS, "completion": "".join(map(str, self.value))}


def random_expression(operations: int, rng: random.Random) -> Expression:
    """A random expression with `operations` operations.

    Operators, coefficients, and the split of operations between the two operands are uniform.

    Raises:
        DataError: `operations` is negative.
    """
    if operations < 0:
        raise DataError(f"An expression cannot have {operations} operations.")
    if not operations:
        value = tuple(rng.randrange(MODULUS) for _ in range(DEGREE))
        return Expression("".join(map(str, value)), value, 0)
    operator = rng.choice(OPERATORS)
    if operator == NEGATE:
        inner = random_expression(operations - 1, rng)
        return Expression(NEGATE + _bracketed(inner), negate(inner.value), operations)
    on_the_left = rng.randrange(operations)
    left = random_expression(on_the_left, rng)
    right = random_expression(operations - 1 - on_the_left, rng)
    return Expression(_bracketed(left) + operator + _bracketed(right), BINARY[operator](left.value, right.value), operations)


def polynomial_problems(count: int, operations: tuple[int, int], seed: int, split: str = "train") -> list[Expression]:
    """`count` expressions; the number of operations is uniform from operations[0] to operations[1]. A split has its own seed.

    Raises:
        DataError: the range is empty or below 1.
    """
    low, high = operations
    if not 1 <= low <= high:
        raise DataError(f"Operations range from {low} to {high}; a range from 1 on is needed.")
    rng = random.Random(f"polynomial {split} {low} {high} {seed}")
    return [random_expression(rng.randint(low, high), rng) for _ in range(count)]


def _bracketed(inner: Expression) -> str:
    return f"({inner.text})" if inner.operations else inner.text
