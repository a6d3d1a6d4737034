"""pass@k (Chen et al. 2021, arXiv 2107.03374, section 2.1)."""

import math
import statistics
from collections.abc import Sequence


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that at least one of k samples passes, estimated without bias from `passed` of `samples` that did.

    Raises: ValueError where k is not from 1 to `samples`, or `passed` not from 0.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {passed} of {samples}.")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)  # none of the k is among those that passed


def over_problems(counts: Sequence[tuple[int, int]], ks: Sequence[int]) -> dict[str, float]:
    """The mean of pass@k over problems, given as (samples, passed), with its standard error."""
    found: dict[str, float] = {}
    for k in ks:
        values = [pass_at_k(samples, passed, k) for samples, passed in counts]
        found[f"pass@{k}"] = statistics.fmean(values)
        found[f"pass@{k}_stderr"] = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return found
