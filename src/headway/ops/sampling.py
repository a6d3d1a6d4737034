"""Warping of logits into a sampling distribution, with the order and the ties of transformers.

Temperature, top-k, top-p (Holtzman et al. 2020, arXiv 1904.09751), min-p (Nguyen et al. 2024, arXiv 2407.01082).
"""

import torch
from torch import Tensor

MIN_TEMPERATURE = 1e-30  # below, quotients overflow; at this value the most probable token alone is left


def apply_temperature_top_k_top_p(
    logits: Tensor,
    temperature: float | None = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Probabilities in float32 that sum to 1 over the kept tokens.

    Args:
        logits: (..., vocab).
        temperature: divisor of the logits.
        top_k: number of most probable tokens to keep, ties with the last included; 0 or None keeps all.
        top_p: keep the smallest set of most probable tokens with at least this probability in total.
        min_p: drop tokens with less than min_p times the probability of the most probable token.
    """
    logits = logits.float()
    if temperature is not None and temperature != 1.0:
        logits = logits / max(temperature, MIN_TEMPERATURE)
    if top_k:
        last_kept = torch.topk(logits, min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < last_kept, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ascending, order = torch.sort(logits, descending=False)
        cut = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        cut[..., -1] = False  # one token is always kept
        logits = logits.masked_fill(cut.scatter(-1, order, cut), -torch.inf)
    if min_p is not None:
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), -torch.inf)
    return logits.softmax(-1)


def sample(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One sampled token per distribution; (..., vocab) -> (...)."""
    flat = probabilities.flatten(0, -2)
    return torch.multinomial(flat, 1, generator=generator).view(probabilities.shape[:-1])
