"""Stories whose characters have names of two tokens (Gloeckle et al. 2024, arXiv 2404.19737, section 4.1).

A model can predict the second token of a name from the first only if the name occurred before. This is the task of an induction
head (Olsson et al. 2022, arXiv 2209.11895), so accuracy on second tokens of repeated names measures induction.
"""

import random
import re
from collections.abc import Iterable, Sequence

from headway.data.generated.stories import BOYS, GIRLS, PETS
from headway.errors import DataError

WORD = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
NAMES = frozenset((*GIRLS, *BOYS, *PETS))
CONSONANTS, VOWELS, ENDS = "bdfgklmnprstvz", "aeiou", "klmnrstx"
Name = tuple[str, str]


def syllables(count: int) -> tuple[list[str], list[str]]:
    """`count` first and `count` second tokens of names, such as Bak.. and ..bex, absent from all stories.

    Raises:
        DataError: fewer syllables exist.
    """
    all_ = [c + v + e for c in CONSONANTS for v in VOWELS for e in ENDS]
    if not 1 <= count <= len(all_) // 2:
        raise DataError(f"Names can be made of 1 to {len(all_) // 2} syllables on each side, not {count}.")
    random.Random("syllables").shuffle(all_)
    return [first.capitalize() for first in all_[:count]], [f"{second}~" for second in all_[-count:]]


def names_of_two_tokens(syllables_: int, share_of_test: float = 0.2) -> tuple[list[Name], list[Name]]:
    """All pairs of syllables in two disjoint lists: names for training, and names for the test."""
    firsts, seconds = syllables(syllables_)
    pairs = [(first, second) for first in firsts for second in seconds]
    random.Random("names").shuffle(pairs)
    cut = round(len(pairs) * share_of_test)
    return pairs[cut:], pairs[:cut]


def words_of(text: str) -> list[str]:
    """A story as words, numbers and single punctuation marks."""
    return WORD.findall(text)


def renamed(words: Sequence[str], names: Sequence[Name], rng: random.Random) -> tuple[list[str], list[int]]:
    """Replace the name of every character by a random name of two tokens.

    Two characters of a story never share a first token; otherwise the first token would not decide the second.

    Returns:
        The words, and the positions of second tokens of repeated names.
    Raises:
        DataError: a story has more characters than there are first tokens.
    """
    given: dict[str, Name] = {}
    found: list[str] = []
    positions: list[int] = []
    for word in words:
        if word not in NAMES:
            found.append(word)
            continue
        known = word in given
        if not known:
            given[word] = _another(names, {first for first, _ in given.values()}, rng)
        found += given[word]
        if known:
            positions.append(len(found) - 1)
    return found, positions


def names_somebody_twice(words: Sequence[str]) -> bool:
    """True if a name occurs twice, so that induction can be measured."""
    named = [word for word in words if word in NAMES]
    return len(named) > len(set(named))


def renamed_stories(
    texts: Iterable[str], names: Sequence[Name], seed: int, length: int | None = None
) -> list[tuple[list[str], list[int]]]:
    """Words and positions, as `renamed` returns, of all texts that repeat a name, cut to `length` words.

    Raises:
        DataError: no text repeats a name.
    """
    rng = random.Random(f"renamed {seed}")
    stories = []
    for text in texts:
        words, positions = renamed(words_of(text), names, rng)
        if length is not None:
            words, positions = words[:length], [position for position in positions if position < length]
        if positions:
            stories.append((words, positions))
    if not stories:
        raise DataError("No story names one of the known characters twice, so there is no induction to measure.")
    return stories


def _another(names: Sequence[Name], taken: set[str], rng: random.Random) -> Name:
    for _ in range(1000):
        if (name := rng.choice(names))[0] not in taken:
            return name
    raise DataError(f"A story has over {len(taken)} characters, and names have too few first tokens for that: use more syllables.")
