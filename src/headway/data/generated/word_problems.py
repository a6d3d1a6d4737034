"""Generated grade-school word problems with worked solutions in GSM8K's form: one step a line, `#### answer` last.

The hash of a question decides its split, so no question can occur in both train and test.
"""

import hashlib
import random
from dataclasses import dataclass, field

from headway.errors import DataError

LEVELS = (1, 2, 3)
TEST_SHARE = 10  # one problem in ten belongs to the test split
PEOPLE = [
    "Ava",
    "Ben",
    "Carla",
    "Dev",
    "Elena",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Liam",
    "Maya",
    "Nora",
    "Omar",
    "Pia",
    "Quinn",
    "Rosa",
    "Sven",
    "Tara",
    "Uma",
    "Victor",
    "Wanda",
    "Yusuf",
]
THINGS = [
    "apples",
    "pencils",
    "marbles",
    "stickers",
    "books",
    "shells",
    "coins",
    "cards",
    "flowers",
    "buttons",
    "stamps",
    "cookies",
    "beads",
    "oranges",
    "balloons",
    "pens",
]
BOXES = ["boxes", "bags", "baskets", "jars", "packs", "drawers"]


@dataclass
class _Story:
    """A problem under construction: sentences, solution steps, and the current amount."""

    person: str
    thing: str
    amount: int
    sentences: list[str]
    steps: list[str] = field(default_factory=list)

    def move(self, sentence: str, operation: str, operand: int, result: int) -> None:
        self.sentences.append(sentence)
        self.steps.append(f"{self.amount} {operation} {operand} = {result}")
        self.amount = result


def word_problems(split: str, count: int, level: int = 1, seed: int = 0) -> list[dict[str, str]]:
    """`count` different problems of `level` steps (1 to 3; higher levels have larger numbers) as rows with prompt and completion.

    Raises:
        DataError: the split or the level is unknown, or fewer problems exist.
    """
    if split not in ("train", "test"):
        raise DataError(f"Word problems have the splits train and test, not {split!r}.")
    if level not in LEVELS:
        raise DataError(f"Word problems have the levels 1, 2 and 3, not {level!r}.")
    rng = random.Random(f"{seed}-{level}-{split}")
    found: dict[str, str] = {}
    misses = 0
    while len(found) < count:
        question, solution = _problem(rng, level)
        if (_is_test(question) == (split == "test")) and question not in found:
            found[question] = solution
            misses = 0
        elif (misses := misses + 1) > 10_000:
            raise DataError(f"There are fewer than {count} different {split} problems of level {level}.")
    return [{"prompt": f"Question: {question}\nAnswer:", "completion": f" {answer}"} for question, answer in found.items()]


def _is_test(question: str) -> bool:
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % TEST_SHARE == 0


def _problem(rng: random.Random, level: int) -> tuple[str, str]:
    person, friend = rng.sample(PEOPLE, 2)
    thing = rng.choice(THINGS)
    limit = (10, 20, 40)[level - 1]
    start = rng.randint(2, limit)
    opening = rng.choice(
        (
            f"{person} has {start} {thing}.",
            f"{person} starts the day with {start} {thing}.",
            f"There are {start} {thing} on {person}'s table.",
        )
    )
    story = _Story(person, thing, start, [opening])
    for _ in range(level):
        _add_step(story, friend, rng, limit)
    question = rng.choice((f"How many {thing} does {person} have now?", f"How many {thing} are there in the end?"))
    return " ".join([*story.sentences, question]), "\n".join([*story.steps, f"#### {story.amount}"])


def _add_step(story: _Story, friend: str, rng: random.Random, limit: int) -> None:
    thing, amount = story.thing, story.amount
    kind = rng.choice(("more", "less", "times", "share"))
    if kind == "less" and amount > 2:
        operand = rng.randint(1, min(amount - 1, limit))
        sentence = rng.choice(
            (
                f"{story.person} gives {operand} of them to {friend}.",
                f"Then {operand} {thing} get lost.",
                f"{friend} borrows {operand}.",
            )
        )
        story.move(sentence, "-", operand, amount - operand)
    elif kind == "times" and amount <= 12:
        operand = rng.randint(2, 5)
        sentence = rng.choice(
            (
                f"{friend} says that {operand} times as many would be better, so they get that many.",
                f"A week later there are {operand} times as many.",
            )
        )
        story.move(sentence, "*", operand, amount * operand)
    elif kind == "share" and (parts := [n for n in (2, 3, 4, 5) if amount % n == 0 and amount > n]):
        operand = rng.choice(parts)
        box = rng.choice(BOXES)
        story.move(
            f"They are put into {operand} {box} with equally many in each, and only one of them is kept.",
            "/",
            operand,
            amount // operand,
        )
    else:
        operand = rng.randint(1, limit)
        sentence = rng.choice(
            (
                f"{friend} brings {operand} more.",
                f"{story.person} buys {operand} more {thing}.",
                f"Then {operand} more {thing} are found under the bed.",
            )
        )
        story.move(sentence, "+", operand, amount + operand)
