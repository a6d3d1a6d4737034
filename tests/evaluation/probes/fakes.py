"""Models with known answers."""

from collections.abc import Callable, Sequence


class Fake:
    """Answers by a function of prompt and seed. A word is a token."""

    def __init__(self, answer: Callable[[str, int | None], str], context_length: int | None = None) -> None:
        self.answer, self.context_length = answer, context_length
        self.asked: list[tuple[str, int | None]] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> list[str]:
        new = list(zip(prompts, [None] * len(prompts) if seeds is None else seeds, strict=True))
        self.asked += new
        return [self.answer(prompt, seed) for prompt, seed in new]

    def num_tokens(self, prompt: str) -> int:
        return len(prompt.split())
