"""Denoising of documents: UL2's mixture (Tay et al. 2022, arXiv 2205.05131, section 3) and prefix language modelling.

Span corruption replaces spans of the text by sentinels. The target lists the sentinels with the tokens of the spans, as in T5
(Raffel et al. 2020, arXiv 1910.10683, section 3.1.4). In a decoder-only model the input stands in front of the target, and the
target alone has labels (UL2, section 3.2). Input and target together hold every token of the text once.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

from headway.ops.labels import IGNORE

Span = tuple[int, int]  # first token, and the token after the last


class Denoised(TypedDict):
    """Lists of equal length. Labels are not shifted; -100 marks tokens without a loss. prefix is true for input tokens."""

    input_ids: list[int]
    labels: list[int]
    prefix: list[bool]


@dataclass(frozen=True)
class Denoiser:
    """Denoiser of UL2.

    Args:
        mode: mode token in front of the text: R (regular), X (extreme) or S (sequential).
        corruption_rate: share of tokens in corrupted spans.
        mean_span_length: tokens; None for a single span at the end of the text.
    """

    mode: str
    corruption_rate: float
    mean_span_length: float | None


# UL2, table 1
R_DENOISERS = (Denoiser("R", 0.15, 3), Denoiser("R", 0.15, 8))
X_DENOISERS = (Denoiser("X", 0.5, 3), Denoiser("X", 0.5, 8), Denoiser("X", 0.15, 64), Denoiser("X", 0.5, 64))
S_DENOISER = Denoiser("S", 0.25, None)
UL2 = (*R_DENOISERS, S_DENOISER, *X_DENOISERS)


@dataclass(frozen=True)
class DenoisingTokens:
    """Token ids that denoising adds to a text.

    Args:
        modes: ids of the mode tokens R, S and X.
        sentinels: ids of the first sentinel, the second sentinel, ...
        eos: id of the eos token.
        bos: id of the bos token, if the tokenizer has a bos token.
    """

    modes: dict[str, list[int]]
    sentinels: Sequence[list[int]]
    eos: int
    bos: int | None = None

    def max_denoised_length(self, length: int) -> float:
        """Largest number of tokens that a document of `length` tokens can become; infinite without enough sentinels."""
        count = max_spans(length)
        if count > len(self.sentinels):
            return math.inf
        return length + max(map(len, self.modes.values())) + 2 * sum(map(len, self.sentinels[:count])) + 1


def ul2(tokens: Sequence[int], special: DenoisingTokens, rng: random.Random, s_denoiser_share: float = 1 / len(UL2)) -> Denoised:
    """Apply a random denoiser to a document.

    Args:
        tokens: the document, including bos and eos tokens.
        special: tokens to add.
        rng: source of the choice and of the spans.
        s_denoiser_share: probability of the S-denoiser; the six R- and X-denoisers share the rest evenly.
    """
    denoiser = S_DENOISER if rng.random() < s_denoiser_share else rng.choice(R_DENOISERS + X_DENOISERS)
    return denoise(tokens, denoiser, special, rng)


def denoise(tokens: Sequence[int], denoiser: Denoiser, special: DenoisingTokens, rng: random.Random) -> Denoised:
    """[bos], the mode token, the corrupted text, the target, and eos. A text of a single token stays unchanged, with labels.

    The target of span corruption always ends with eos. The target of the S-denoiser ends with eos only if the text does, because a
    piece of a longer document must not teach the model to stop.
    """
    opening, body, closing = _split_special(tokens, special.bos, special.eos)
    if len(body) < 2:
        return Denoised(input_ids=list(tokens), labels=list(tokens), prefix=[False] * len(tokens))
    rate, mean = denoiser.corruption_rate, denoiser.mean_span_length
    if mean is None:
        split = len(body) - num_noise_tokens(len(body), rate)
        inputs, targets = body[:split], body[split:] + closing
    else:
        inputs, targets = corrupt_spans(body, random_spans(len(body), rate, mean, rng), special.sentinels)
        targets.append(special.eos)
    inputs = [*opening, *special.modes[denoiser.mode], *inputs]
    return Denoised(
        input_ids=inputs + targets,
        labels=[IGNORE] * len(inputs) + targets,
        prefix=[True] * len(inputs) + [False] * len(targets),
    )


def prefix_lm(tokens: Sequence[int], labels: Sequence[int], rng: random.Random, bos: int | None = None) -> Denoised:
    """A document split into prefix and target at a uniformly random position (T5, section 3.2.3; Wang et al., arXiv 2204.05832).

    If `labels` leave out a prompt, the prompt is the prefix.
    """
    split = next((position for position, label in enumerate(labels) if label != IGNORE), len(labels))
    if split == 0:
        first = 1 + (bos is not None and tokens[0] == bos)
        split = rng.randrange(first, len(tokens)) if len(tokens) > first else 0
    return Denoised(
        input_ids=list(tokens),
        labels=[IGNORE] * split + list(labels[split:]),
        prefix=[position < split for position in range(len(tokens))],
    )


def num_noise_tokens(length: int, rate: float) -> int:
    """Number of corrupted tokens of `length`: at least one, and at least one token stays."""
    return min(max(round(length * rate), 1), length - 1)


def num_noise_spans(length: int, rate: float, mean: float) -> int:
    """Number of corrupted spans. At least one token stays between two spans."""
    noise = num_noise_tokens(length, rate)
    return min(max(round(noise / mean), 1), noise, length - noise)


def random_spans(length: int, rate: float, mean: float, rng: random.Random) -> list[Span]:
    """Spans to corrupt, in order, uniform over all ways to cut kept and corrupted tokens into equally many runs.

    The text begins with a kept run and ends with a corrupted span, as in T5's `random_spans_noise_mask`.

    Args:
        length: tokens of the text, at least 2.
        rate: share of corrupted tokens.
        mean: mean span length in tokens.
        rng: source of the runs.
    """
    noise, count = num_noise_tokens(length, rate), num_noise_spans(length, rate, mean)
    spans, position = [], 0
    for kept, corrupted in zip(_run_lengths(length - noise, count, rng), _run_lengths(noise, count, rng), strict=True):
        spans.append((position + kept, position + kept + corrupted))
        position += kept + corrupted
    return spans


def corrupt_spans(tokens: Sequence[int], spans: Sequence[Span], sentinels: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """Input with sentinels in place of the spans, and target of sentinels followed by the tokens of the spans.

    Raises:
        ValueError: there are fewer sentinels than spans.
    """
    if len(sentinels) < len(spans):
        raise ValueError(f"{len(spans)} spans need as many sentinels, and there are {len(sentinels)}")
    inputs: list[int] = []
    targets: list[int] = []
    position = 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*tokens[position:start], *sentinel]
        targets += [*sentinel, *tokens[start:end]]
        position = end
    return inputs + list(tokens[position:]), targets


def max_spans(length: int) -> int:
    """Largest number of spans that a denoiser of UL2 corrupts in a document of `length` tokens."""
    means = ((denoiser.corruption_rate, denoiser.mean_span_length) for denoiser in UL2)
    return max(num_noise_spans(max(length, 2), rate, mean) for rate, mean in means if mean is not None)


def max_document_length(row_length: int, max_denoised_length: Callable[[int], float]) -> int:
    """Largest number of tokens of a document that always fits into a row after denoising; 0 if no document fits."""
    longest = 0
    for length in range(2, row_length):
        if max_denoised_length(length) > row_length:
            break
        longest = length
    return longest


def _run_lengths(items: int, count: int, rng: random.Random) -> list[int]:
    cuts = [0, *sorted(rng.sample(range(1, items), count - 1)), items]
    return [end - start for start, end in pairwise(cuts)]


def _split_special(tokens: Sequence[int], bos: int | None, eos: int) -> tuple[list[int], list[int], list[int]]:
    opening = [bos] if bos is not None and tokens[0] == bos else []
    closing = [eos] if len(tokens) > len(opening) and tokens[-1] == eos else []
    return opening, list(tokens[len(opening) : len(tokens) - len(closing)]), closing
