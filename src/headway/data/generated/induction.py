"""Stories whose characters have names of two tokens (Gloeckle et al. 2024, arXiv 2404.19737, section 4.1).

Who has read a name once can tell its second token from its first; nothing else can. That is what an induction head does
(Olsson et al. 2022, arXiv 2209.11895), so accuracy on second tokens of names already mentioned measures induction.
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
    """`count` first and `count` second tokens of names, which no story has otherwise: Bak.., ..bex and the like.

    Raises: DataError where there are not so many.
    """
    all_ = [c + v + e for c in CONSONANTS for v in VOWELS for e in ENDS]
    if not 1 <= count <= len(all_) // 2:
        raise DataError(f"Names can be made of 1 to {len(all_) // 2} syllables on each side, not {count}.")
    random.Random("syllables").shuffle(all_)
    return [one.capitalize() for one in all_[:count]], [f"{one}~" for one in all_[-count:]]


def names_of_two_tokens(syllables_: int, share_of_test: float = 0.2) -> tuple[list[Name], list[Name]]:
    """All pairs of syllables, apart: names of training and names of the test, which no training story holds."""
    firsts, seconds = syllables(syllables_)
    pairs = [(first, second) for first in firsts for second in seconds]
    random.Random("names").shuffle(pairs)
    cut = round(len(pairs) * share_of_test)
    return pairs[cut:], pairs[:cut]


def words_of(text: str) -> list[str]:
    """A story as words, numbers and single punctuation marks."""
    return WORD.findall(text)


def renamed(words: Sequence[str], names: Sequence[Name], random_: random.Random) -> tuple[list[str], list[int]]:
    """Replace every character's name by one of two tokens, drawn anew for this story.

    Two characters of a story never share a first token, or the second would not follow from it.

    Returns: the words, and the places of second tokens whose name stood earlier in the story.
    Raises: DataError where a story has more characters than names have first tokens.
    """
    given: dict[str, Name] = {}
    found: list[str] = []
    places: list[int] = []
    for word in words:
        if word not in NAMES:
            found.append(word)
            continue
        known = word in given
        if not known:
            given[word] = _another(names, {first for first, _ in given.values()}, random_)
        found += given[word]
        if known:
            places.append(len(found) - 1)
    return found, places


def names_somebody_twice(words: Sequence[str]) -> bool:
    """Whether there is a place to measure induction at."""
    named = [word for word in words if word in NAMES]
    return len(named) > len(set(named))


def renamed_stories(
    texts: Iterable[str], names: Sequence[Name], seed: int, length: int | None = None
) -> list[tuple[list[str], list[int]]]:
    """Those of `texts` that name somebody twice, renamed and cut to `length` words.

    Raises: DataError where none is left.
    """
    random_ = random.Random(f"renamed {seed}")
    stories = []
    for text in texts:
        words, places = renamed(words_of(text), names, random_)
        if length is not None:
            words, places = words[:length], [place for place in places if place < length]
        if places:
            stories.append((words, places))
    if not stories:
        raise DataError("No story names one of the known characters twice, so there is no induction to measure.")
    return stories


def _another(names: Sequence[Name], taken: set[str], random_: random.Random) -> Name:
    for _ in range(1000):
        if (name := random_.choice(names))[0] not in taken:
            return name
    raise DataError(f"A story has over {len(taken)} characters, and names have too few first tokens for that: use more syllables.")
