"""From logits to the distribution that is drawn from, cut down in the order and with the ties of transformers.

Temperature, top-k, top-p (Holtzman et al. 2020, arXiv 1904.09751), min-p (Nguyen et al. 2024, arXiv 2407.01082).
"""

import torch
from torch import Tensor

COLDEST = 1e-30  # below, quotients overflow; here already nothing but the likeliest is left


def truncate(
    logits: Tensor,
    temperature: float | None = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Probabilities in float32, summing to 1 over the tokens that are left.

    Args:
        logits: (..., vocab).
        temperature: divides the logits.
        top_k: the k likeliest tokens stay, and those tied with the last of them; 0 or None keeps all.
        top_p: the fewest likeliest tokens that together have this probability stay.
        min_p: tokens less likely than min_p times the likeliest go.
    """
    logits = logits.float()
    if temperature is not None and temperature != 1.0:
        logits = logits / max(temperature, COLDEST)
    if top_k:
        last_kept = torch.topk(logits, min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < last_kept, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ascending, order = torch.sort(logits, descending=False)
        cut = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        cut[..., -1] = False  # one token always stays
        logits = logits.masked_fill(cut.scatter(-1, order, cut), -torch.inf)
    if min_p is not None:
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), -torch.inf)
    return logits.softmax(-1)


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One token from each distribution; (..., vocab) -> (...)."""
    flat = probabilities.flatten(0, -2)
    return torch.multinomial(flat, 1, generator=generator).view(probabilities.shape[:-1])
