"""A grammar in one notation: `[a|b|c]` is one of its choices, which may hold further choices; `{name}` is filled in afterwards."""

import random
import re

CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(template: str, random_: random.Random) -> str:
    """Replace every `[a|b|c]` by one of its choices, innermost first. Text in `{...}` is left for `str.format`."""
    while found := CHOICE.search(template):
        template = template[: found.start()] + random_.choice(found[1].split("|")) + template[found.end() :]
    return template
