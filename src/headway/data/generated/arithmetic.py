"""Generated number drills: equations, tables, chains of steps, and short sentences with an equation.

The drills teach the embedded model to calculate. The word problems of `word_problems.py` stay unseen: no drill asks a question about
a story or shares a sentence with a word problem.
"""

# ruff: noqa: E501, SIM905 - word lists and sentences of the grammar read best in one piece

import random
from collections.abc import Callable

from headway.data.generated.templates import expand

Fact = tuple[int, str, int, int]  # left, operation, right, result


def generate_drills(count: int, seed: int) -> list[str]:
    """`count` different drills of several lines, with true equations only; a seed always gives the same drills."""
    rng = random.Random(f"drills {seed}")
    found: dict[str, None] = {}
    while len(found) < count:
        kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
        found[kind(rng)] = None
    return list(found)


def fact(rng: random.Random, operations: str = "+-*/") -> Fact:
    """One true equation: operands up to 100, products up to 12 x 12, no negative result, no remainder."""
    operation = rng.choice(operations)
    if operation in "*/":
        left, right = rng.randint(1, 12), rng.randint(1, 12)
        return (left, "*", right, left * right) if operation == "*" else (left * right, "/", right, left)
    limit = rng.choice((10, 20, 50, 100))
    left, right = rng.randint(0, limit), rng.randint(0, limit)
    if operation == "+":
        return left, "+", right, left + right
    left, right = max(left, right), min(left, right)
    return left, "-", right, left - right


def written(found: Fact) -> str:
    return "{} {} {} = {}".format(*found)


def _equations(rng: random.Random) -> str:
    operations = rng.choice(("+-*/", "+-", "+", "-", "*", "/", "*/"))
    return "\n".join(written(fact(rng, operations)) for _ in range(rng.randint(6, 20)))


def _table(rng: random.Random) -> str:
    by = rng.randint(2, 12)
    kind = rng.choice(("*", "/", "+", "count"))
    if kind == "count":
        start = rng.randint(0, 20)
        return f"Count by {by} from {start}:\n" + ", ".join(str(start + by * i) for i in range(rng.randint(8, 14)))
    if kind == "+":
        start = rng.randint(0, 60)
        return "\n".join(written((i, "+", by, i + by)) for i in range(start, start + rng.randint(6, 14)))
    last = rng.randint(8, 12)
    if kind == "*":
        return "\n".join(written((i, "*", by, i * by)) for i in range(1, last + 1))
    return "\n".join(written((i * by, "/", by, i)) for i in range(1, last + 1))


def step_from(amount: int, rng: random.Random) -> Fact:
    """A true equation that starts from `amount` and stays between 1 and about 150."""
    choices = "++--"
    if amount <= 12:
        choices += "**"
    divisors = [d for d in range(2, 13) if amount % d == 0 and amount // d <= 12 and amount > d]
    if divisors:
        choices += "//"
    operation = rng.choice(choices if amount > 2 else "+*")
    if operation == "+":
        right = rng.randint(1, rng.choice((10, 20, 50)))
        if amount + right <= 150:
            return amount, "+", right, amount + right
        operation = "-"
    if operation == "*":
        right = rng.randint(2, 12)
        return amount, "*", right, amount * right
    if operation == "/":
        right = rng.choice(divisors)
        return amount, "/", right, amount // right
    right = rng.randint(1, min(amount - 1, rng.choice((10, 20, 60))))
    return amount, "-", right, amount - right


def _chain(rng: random.Random) -> str:
    chains = []
    for _ in range(rng.randint(2, 5)):
        amount = rng.randint(1, rng.choice((12, 40, 100)))
        lines = [f"Start with {amount}."] if rng.random() < 0.5 else []
        for _ in range(rng.randint(2, 5)):
            lines.append(written(found := step_from(amount, rng)))
            amount = found[3]
        chains.append("\n".join([*lines, *([f"The result is {amount}."] if rng.random() < 0.5 else [])]))
    return "\n\n".join(chains)


def _parts(rng: random.Random) -> str:
    def line() -> str:
        n, times = rng.randint(1, 12), rng.randint(2, 12)
        half = rng.randint(1, 50)
        return rng.choice(
            (
                f"half of {2 * half} is {half}",
                f"double {half} is {2 * half}",
                f"twice {half} is {2 * half}",
                f"a third of {3 * n} is {n}",
                f"a quarter of {4 * n} is {n}",
                f"{times} times {n} is {times * n}",
                f"{times * n} shared by {times} is {n}",
            )
        )

    return "\n".join(line() for _ in range(rng.randint(5, 14)))


def _compare(rng: random.Random) -> str:
    def line() -> str:
        small = rng.randint(0, 80)
        large = small + rng.randint(1, 20)
        return rng.choice(
            (
                f"{large} is greater than {small}",
                f"{small} is less than {large}",
                f"{large} is {large - small} more than {small}",
                f"{small} is {large - small} less than {large}",
                f"From {small} to {large} it is {large - small}.",
                f"After {large} comes {large + 1}.",
                f"Before {large} comes {large - 1}.",
            )
        )

    return "\n".join(line() for _ in range(rng.randint(5, 14)))


def _family(rng: random.Random) -> str:
    """Fact family: four equations of the same three numbers."""
    groups = []
    for _ in range(rng.randint(2, 4)):
        if rng.random() < 0.5:
            a, b = rng.randint(1, 50), rng.randint(1, 50)
            facts = [(a, "+", b, a + b), (b, "+", a, a + b), (a + b, "-", a, b), (a + b, "-", b, a)]
        else:
            a, b = rng.randint(2, 12), rng.randint(2, 12)
            facts = [(a, "*", b, a * b), (b, "*", a, a * b), (a * b, "/", a, b), (a * b, "/", b, a)]
        groups.append("\n".join(map(written, facts)))
    return "\n\n".join(groups)


def _columns(rng: random.Random) -> str:
    """Adding tens and ones apart."""
    lines = []
    for _ in range(rng.randint(2, 5)):
        a, b = rng.randint(11, 89), rng.randint(11, 89)
        tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
        lines.append(
            f"{a} + {b}\ntens: {a // 10 * 10} + {b // 10 * 10} = {tens}\nones: {a % 10} + {b % 10} = {ones}\n"
            f"{tens} + {ones} = {a + b}\n{a} + {b} = {a + b}"
        )
    return "\n\n".join(lines)


ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n: int) -> str:
    """A number below 100 as words: 42 is forty-two."""
    if n < 20:
        return ONES[n]
    return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")


def _words(rng: random.Random) -> str:
    def line() -> str:
        a, b = rng.randint(0, 49), rng.randint(0, 49)
        low, high = min(a, b), max(a, b)
        return rng.choice(
            (
                f"{in_words(a)} plus {in_words(b)} is {in_words(a + b)}: {a} + {b} = {a + b}",
                f"{in_words(high)} minus {in_words(low)} is {in_words(high - low)}: {high} - {low} = {high - low}",
                f"{a} is {in_words(a)}",
                f"{in_words(b)} is written {b}",
            )
        )

    return "\n".join(line() for _ in range(rng.randint(4, 10)))


NAMES = "Tom Lily Sam Anna Max Lucy Tim Mia Jack Ella Leo Ruby Bob Kate Finn Daisy Peter Jane Billy Zoe".split()
GOODS = "pears leaves nuts stones fish toys hats plums cups eggs ducks sheep stars cherries blocks ribbons bells carrots".split()
PLACES = ["in the barn", "by the river", "in the garden", "on the hill", "at the beach", "under the tree", "in the kitchen"]
ADD = [
    "{x} [finds|picks|sees|counts|collects] {a} {goods} {place} and {b} [more |other |]{goods} [later|at home|in the evening|on the way].",
    "{x} has {a} {goods} and [gets|takes|makes] {b} more.",
    "[In the morning|On Monday] {x} [counts|sees|makes] {a} {goods}, and [in the evening|on Tuesday] {b}.",
]
ADDED = ["[Now|So] {x} has {c} {goods}.", "[That is|That makes|Together it is] {c} {goods}.", "So there are {c} in all."]
TAKE = [
    "{x} has {a} {goods} and [loses|eats|drops|sells|hides] {b}.",
    "{a} {goods} are {place}, and {b} [go away|are taken away|roll away].",
    "{x} [sees|counts] {a} {goods} {place}. The wind takes {b}.",
]
TAKEN = ["[Now|So] {c} are left.", "{c} {goods} [are left|stay].", "[That leaves|This leaves] {c}."]
TIMES = [
    "{x} has {a} [boxes|rows|bags] with {b} {goods} [in each|each].",
    "[Every day|Each day] {x} [finds|makes|counts] {b} {goods}, for {a} days.",
    "There are {a} [plates|shelves|groups], and each has {b} {goods}.",
]
PRODUCT = ["[That is|That makes] {c} {goods}.", "So there are {c} [in all|{goods}]."]
SHARE = [
    "{x} [shares|splits] {a} {goods} [between|among] {b} [friends|children|bowls].",
    "{a} {goods} lie in {b} rows, all the same.",
]
SHARED = ["[Each gets|Each one gets|That is] {c}.", "So each has {c} {goods}."]
BOTH = ["{x} has {a} {goods}, and {y} has {b}.", "{x} [makes|picks|collects] {a} {goods}. {y} [makes|picks|collects] {b}."]
TOGETHER = ["Together they have {c} {goods}.", "So there are {c} in all."]
SENTENCES = [
    ("+", ADD, ADDED), ("+", BOTH, TOGETHER), ("-", TAKE, TAKEN), ("-", TAKE, TAKEN), ("*", TIMES, PRODUCT), ("/", SHARE, SHARED),
]  # fmt: skip


def _sentence(rng: random.Random) -> str:
    operation, tellings, results = rng.choice(SENTENCES)
    a = b = c = 0
    while min(a, b, c) < 2 or (operation in "+-" and max(a, b) > 60):  # plurals everywhere
        a, _, b, c = fact(rng, operation)
    x, y = rng.sample(NAMES, 2)
    text = expand(f"{rng.choice(tellings)} {{a}} {operation} {{b}} = {{c}}. {rng.choice(results)}", rng)
    return text.format(x=x, y=y, a=a, b=b, c=c, goods=rng.choice(GOODS), place=rng.choice(PLACES))


def _sentences(rng: random.Random) -> str:
    separator = rng.choice(("\n", "\n\n"))
    return separator.join(_sentence(rng) for _ in range(rng.randint(3, 9)))


# kinds of drills and their weights
KINDS: dict[Callable[[random.Random], str], int] = {
    _equations: 20, _chain: 22, _sentences: 30, _parts: 6, _family: 6, _columns: 6, _words: 4, _table: 3, _compare: 3,
}  # fmt: skip
