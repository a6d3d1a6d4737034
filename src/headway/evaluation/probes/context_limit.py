"""Check of contexts against the context length of the model. No context is ever cut: a long context is an error, or left out."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from headway.errors import DataError
from headway.evaluation.probes.answering import Answers


def context_tokens(answer: Answers, prompts: Sequence[Sequence[str]]) -> list[int]:
    """Tokens of every task, answer included, at the longest position.

    Args:
        prompts: (positions, tasks).
    """
    return [max(map(answer.num_tokens, of_task)) for of_task in zip(*prompts, strict=True)]


def require_context(
    context_length: int,
    lengths: Sequence[int],
    lengths_of_size: Callable[[int], Sequence[int]],
    size: int,
    unit: str,
    hint: str = "",
) -> None:
    """Raise DataError if a task is longer than the context length. The error names the largest size with no longer task.

    Args:
        context_length: tokens that the model reads.
        lengths: tokens of the tasks of `size`.
        lengths_of_size: tokens of the same tasks at a smaller size.
        size: number of documents or pairs in a context.
        unit: name of the setting for the size.
        hint: further advice for the error.
    """
    too_long = sum(length > context_length for length in lengths)
    if not too_long:
        return
    largest = 1 + bisect_left(range(2, size), True, key=lambda smaller: max(lengths_of_size(smaller)) > context_length)
    raise DataError(
        f"{too_long} of {len(lengths)} contexts of {size} {unit} are longer than the {context_length} tokens that the model reads "
        f"(the longest takes {max(lengths)} with its answer), and none is cut. "
        + (f"Ask for --{unit} {largest}, the most that fits all" if largest > 1 else f"Not even 2 {unit} fit all")
        + f", ask for fewer --max-new-tokens,{hint} or take a model with a longer context."
    )
