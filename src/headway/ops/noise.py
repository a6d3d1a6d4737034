"""Counter-based noise: a function of seed and position, independent of the batch and of the decoding path.

The argmax of log-probabilities plus Gumbel noise is a sample of the distribution (Gumbel-max: Gumbel 1954; Maddison et al. 2014,
arXiv 1411.0030). Noise fixed by seed and position makes trunk and drafter sample with the same noise, so that they mostly agree,
and makes the text independent of the drafter (drafter-invariant speculative decoding: Daliri et al. 2024, arXiv 2408.07978).
"""

import torch
from torch import Tensor

_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15: its multiples are far apart (Weyl sequence)


def gumbel(seeds: Tensor, positions: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise in float32, independent between seeds, positions and tokens.

    Args:
        seeds: int64, (rows,).
        positions: int64, (rows, n).
        vocabulary: number of tokens.
    Returns: (rows, n, vocabulary).
    """
    counters = _mix(seeds[:, None] + positions * _STEP)
    tokens = torch.arange(1, vocabulary + 1, device=seeds.device) * _STEP
    bits = _mix(counters[..., None] + tokens) & (2**63 - 1)
    # Small values of the exponential variable decide, and floating point has the highest resolution near 0.
    # The upper bound excludes 1, which would give a token probability 0 even as the only candidate.
    uniform = (bits.float() * 2.0**-63).clamp(2.0**-63, 1 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def document_seeds(tokens: Tensor, positions: Tensor, segments: Tensor, seed: int) -> Tensor:
    """Seed per document, made of the document's tokens and `seed`: independent of row, batch, order and process.

    Args:
        tokens: int64, (batch, seq).
        positions: position within the document, int64, (batch, seq).
        segments: number of the document, -1 for padding, int64, (batch, seq).
        seed: seed of the run.
    Returns: int64, (batch, seq), equal for all tokens of a document.
    """
    seed = folded(seed)
    terms = _mix(tokens * _STEP + _mix(positions * _STEP + seed))
    index = segments + 1
    sums = torch.zeros(tokens.shape[0], int(index.max()) + 1, dtype=torch.int64, device=tokens.device)
    return _mix(sums.scatter_add_(1, index, terms).gather(1, index) + seed)


def folded(seed: int) -> int:
    """Integer of any size folded into int64; int64 values stay unchanged."""
    return (seed + 2**63) % 2**64 - 2**63


def uniform(seeds: Tensor, counters: Tensor | int = 0) -> Tensor:
    """Uniform noise on [0, 1) in float32, independent between seeds and counters; int64 inputs broadcast."""
    return (_mix(_mix(seeds) + counters * _STEP) & (1 << 24) - 1).float() * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014, doi 10.1145/2714064.2660195)."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -4658895280553007687  # 0xBF58476D1CE4E5B9; shifts are logical
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ (x >> 31 & (1 << 33) - 1)
