"""Loss, memory and speed of a model before and after quantisation."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headway.decoding import DecodeStats
from headway.decoding.padding import left_block
from headway.evaluation.benchmarks.speed import greedy
from headway.model import HeadwayModel
from headway.trunk.quantization import stored_bytes
from headway.trunk.roofline import choose

if TYPE_CHECKING:
    from headway.evaluation.tasks.held_out import HeldOut

REPEATS = 3  # after one warm-up


@dataclass(frozen=True)
class QuantizationEffect:
    """Comparison of a model before and after quantisation. The scheme "none" means that no scheme was faster."""

    scheme: str
    why: str  # reason for the choice; empty if the scheme was given
    loss_before: float  # next-token loss of the trunk, nats
    loss_after: float
    bytes_before: int  # trunk and heads in memory
    bytes_after: int
    plain_speed_ratio: float | None  # tokens per second of autoregressive decoding, after over before; None without prompts


def quantize_and_compare(
    model: HeadwayModel,
    scheme: str,
    metrics: "Callable[[], HeldOut]",
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> "tuple[QuantizationEffect, HeldOut]":
    """Quantise `model` in place and compare metrics and speed before and after.

    The two timings are not interleaved: the speed ratio is rough.

    Args:
        scheme: quantisation scheme, or "auto" for the fastest scheme at a batch size of 1 with drafts.
        metrics: returns the held-out metrics of `model` in the present state.
        prompts: prompts to time, decoded singly.
    Returns: the comparison, and the metrics after quantisation.
    Raises:
        ConfigError: torchao is missing, or the scheme does not exist.
        UnsupportedModelError: the scheme does not run on this model or machine.
    """
    why = ""
    if scheme == "auto":
        choice = choose(model.trunk, 1 + model.count)
        scheme, why = choice.scheme, choice.why
    before, size, speed = metrics(), stored_bytes(model), _tokens_per_second(model, prompts, max_new_tokens)
    if scheme == "none":
        loss = before.losses[0]
        return QuantizationEffect(scheme, why, loss, loss, size, size, None if speed is None else 1.0), before
    model.quantize(scheme)
    after, ratio = metrics(), None
    if speed is not None:
        ratio = (_tokens_per_second(model, prompts, max_new_tokens) or 0.0) / speed
    return QuantizationEffect(scheme, why, before.losses[0], after.losses[0], size, stored_bytes(model), ratio), after


def _tokens_per_second(model: HeadwayModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> float | None:
    """Median over repeats of greedy autoregressive decoding of all prompts; None without prompts."""
    if not prompts:
        return None
    rates = []
    for _ in range(REPEATS + 1):
        stats = []
        for prompt in prompts:
            ids, mask = left_block([prompt], 0, model.device)
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=mask, speculative=False, **greedy(max_new_tokens))
            stats.append(out.stats)
        rates.append(DecodeStats.merge(stats).tokens_per_second)
    return statistics.median(rates[1:])
