"""Random text from a grammar: `[a|b|c]` is a choice, choices nest, and `{name}` is filled in afterwards."""

import random
import re

CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(template: str, rng: random.Random) -> str:
    """Replace every `[a|b|c]` by a random choice, innermost first. Text in `{...}` is left for `str.format`."""
    while found := CHOICE.search(template):
        template = template[: found.start()] + rng.choice(found[1].split("|")) + template[found.end() :]
    return template
