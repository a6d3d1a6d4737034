"""Contexts that a model can read: nothing is ever cut, so what is too long is an error or is left out and counted."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from headway.errors import DataError
from headway.evaluation.probes.answering import Answers


def lengths_of(answer: Answers, prompts: Sequence[Sequence[str]]) -> list[int]:
    """Tokens of each task with its answer, the most of all positions; prompts: (positions, tasks)."""
    return [max(map(answer.length, each)) for each in zip(*prompts, strict=True)]


def require_room(
    window: int, lengths: Sequence[int], smaller: Callable[[int], Sequence[int]], size: int, what: str, hint: str = ""
) -> None:
    """Raise DataError where a task is longer than the window, naming the largest size of which all tasks fit.

    Args:
        lengths: of tasks of `size`; smaller: those of the same tasks with fewer. what: name of the setting. hint: of other ways.
    """
    long = sum(length > window for length in lengths)
    if not long:
        return
    fitting = 1 + bisect_left(range(2, size), True, key=lambda fewer: max(smaller(fewer)) > window)
    raise DataError(
        f"{long} of {len(lengths)} contexts of {size} {what} are longer than the {window} tokens that the model reads "
        f"(the longest takes {max(lengths)} with its answer), and none is cut. "
        + (f"Ask for --{what} {fitting}, the most that fits all" if fitting > 1 else f"Not even 2 {what} fit all")
        + f", ask for fewer --max-new-tokens,{hint} or take a model with a longer context."
    )
