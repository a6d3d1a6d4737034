"""What quantising a model costs in loss, and what it gives in bytes and in speed."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from headway.decoding import DecodeStats
from headway.evaluation.tasks.exact_match import left_padded
from headway.evaluation.tasks.held_out import HeldOut
from headway.model import HeadwayModel
from headway.trunk.quantization import stored_bytes
from headway.trunk.roofline import choose

REPEATS = 3  # after one that is not counted


@dataclass(frozen=True)
class Quantized:
    """Before and after; "none" as scheme means that nothing was done, because nothing was faster."""

    scheme: str
    why: str  # empty where the scheme was given
    loss_before: float  # the trunk's next-token loss, nats
    loss_after: float
    bytes_before: int  # of trunk and heads in memory
    bytes_after: int
    plain_speed_ratio: float | None  # tokens a second of plain decoding, after over before; None without prompts


def quantize_and_compare(
    model: HeadwayModel,
    scheme: str,
    measured: Callable[[], HeldOut],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> tuple[Quantized, HeldOut]:
    """Quantise `model` in place by `scheme`, or the fastest one for a row and its drafts where it is "auto".

    Args:
        measured: the losses of `model` as it is when called.
        prompts: timed one at a time; the two timings come one after the other, so that the ratio is a rough one.
    Returns: the comparison, and the losses afterwards.
    Raises: ConfigError, UnsupportedModelError where the scheme does not run here.
    """
    why = ""
    if scheme == "auto":
        choice = choose(model.trunk, 1 + model.count)
        scheme, why = choice.scheme, choice.why
    before, size, speed = measured(), stored_bytes(model), _speed(model, prompts, max_new_tokens)
    if scheme == "none":
        return Quantized(scheme, why, before.losses[0], before.losses[0], size, size, 1.0 if speed else None), before
    model.quantize(scheme)
    after, ratio = measured(), None
    if speed is not None:
        ratio = (_speed(model, prompts, max_new_tokens) or 0.0) / speed
    return Quantized(scheme, why, before.losses[0], after.losses[0], size, stored_bytes(model), ratio), after


def _speed(model: HeadwayModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> float | None:
    """Median tokens a second of plain greedy decoding over all prompts."""
    found = []
    for _ in range(REPEATS + 1 if prompts else 0):
        stats = []
        for prompt in prompts:
            ids, mask = left_padded([prompt], model.device)
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, plain=True)
            stats.append(out.stats)
        found.append(DecodeStats.together(stats).tokens_per_second)
    return statistics.median(found[1:]) if found else None
