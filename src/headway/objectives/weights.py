"""Weights of the heads' losses, and their course over a run. This module imports no torch."""

import math
from collections.abc import Callable

HEAD_WEIGHTS: dict[str, Callable[[int, float], list[float]]] = {
    "constant": lambda count, beta: [1.0] * count,
    "medusa": lambda count, beta: [0.8**k for k in range(1, count + 1)],  # Medusa (arXiv 2401.10774), section 2.2
    "beta": lambda count, beta: _normalised([beta**k for k in range(count)]),  # FastMTP (arXiv 2509.18362)
}


def _curriculum(step: int, count: int) -> list[float]:
    return [1.0 if k < step else 0.0 for k in range(count)]


# progress in [0, 1], number of heads -> a factor for each head
SCHEDULES: dict[str, Callable[[float, int], list[float]]] = {
    "constant": lambda progress, count: [1.0] * count,
    "sine": lambda progress, count: [math.sin(math.pi / 2 * progress)] * count,  # Medusa-2's ramp
    "fade-out": lambda progress, count: [math.sin(math.pi / 2 * (1 - progress))] * count,  # CAFT's rsine (2506.07833)
    # curricula of arXiv 2505.22757: k = min(kmax, floor(e / (E / kmax)) + 1) offsets, or backwards; the trunk is one of them
    "forward": lambda progress, count: _curriculum(min(count, int(progress * (count + 1))), count),
    "reverse": lambda progress, count: _curriculum(max(0, count - int(progress * (count + 1))), count),
}


def _normalised(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]
