"""pass@k (Chen et al. 2021, arXiv 2107.03374, section 2.1)."""

import math
import statistics
from collections.abc import Sequence


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate of the probability of a pass among k samples, from `passed` of `samples` samples.

    Raises:
        ValueError: k is not from 1 to `samples`, or `passed` is not from 0 to `samples`.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {passed} of {samples}.")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)  # 1 - probability that all k samples failed


def mean_pass_at_k(counts: Sequence[tuple[int, int]], ks: Sequence[int]) -> dict[str, float]:
    """Mean pass@k over problems, with standard error.

    Args:
        counts: (samples, passed), by problem.
        ks: values of k.
    Returns: the keys pass@k and pass@k_stderr for every k.
    """
    means: dict[str, float] = {}
    for k in ks:
        values = [pass_at_k(samples, passed, k) for samples, passed in counts]
        means[f"pass@{k}"] = statistics.fmean(values)
        means[f"pass@{k}_stderr"] = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return means
