"""Noise that belongs to a place in a text: what is drawn there does not depend on how the text came about.

A token drawn as the likeliest after Gumbel noise has the distribution it should (Gumbel 1954; Maddison et al. 2014,
arXiv 1411.0030). With the noise fixed by seed and position, trunk and drafter draw with the same noise and mostly agree, and
the text is the same with any drafter or none (drafter-invariant speculative decoding: Daliri et al. 2024, arXiv 2408.07978).
"""

import torch
from torch import Tensor

_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15: multiples of it are far apart (Weyl sequence)


def gumbel(seeds: Tensor, positions: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise in float32, independent between seeds, positions and tokens.

    Args: seeds: (rows,), int64; positions: (rows, n), int64.
    Returns: (rows, n, vocabulary).
    """
    places = _mix(seeds[:, None] + positions * _STEP)
    tokens = torch.arange(1, vocabulary + 1, device=seeds.device) * _STEP
    bits = _mix(places[..., None] + tokens) & (2**63 - 1)
    # of an exponential variable the small values matter, and floating point is finest there
    # rounding up to 1 would leave a token no chance at all, not even where it is the only one
    uniform = (bits.float() * 2.0**-63).clamp(2.0**-63, 1 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def document_seeds(tokens: Tensor, positions: Tensor, segments: Tensor, seed: int) -> Tensor:
    """A number of each document's own, made of its tokens and of `seed`: the same in any row, batch, order or process.

    Args: tokens, positions (within the document) and segments (-1 for padding), each (batch, seq), int64.
    Returns: (batch, seq), int64; all tokens of a document have the same.
    """
    seed = folded(seed)
    terms = _mix(tokens * _STEP + _mix(positions * _STEP + seed))
    place = segments + 1
    sums = torch.zeros(tokens.shape[0], int(place.max()) + 1, dtype=torch.int64, device=tokens.device)
    return _mix(sums.scatter_add_(1, place, terms).gather(1, place) + seed)


def folded(seed: int) -> int:
    """A number of any size as int64, which are those that stay as they are."""
    return (seed + 2**63) % 2**64 - 2**63


def uniform(seeds: Tensor, places: Tensor | int = 0) -> Tensor:
    """Uniform on [0, 1) in float32, independent between seeds and places; int64, of any shapes that go together."""
    return (_mix(_mix(seeds) + places * _STEP) & (1 << 24) - 1).float() * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014, doi 10.1145/2714064.2660195)."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -4658895280553007687  # 0xBF58476D1CE4E5B9; shifts are logical
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ (x >> 31 & (1 << 33) - 1)
