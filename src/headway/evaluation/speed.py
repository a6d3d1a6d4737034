"""How much faster the heads make decoding: the same prompts, model and machine, in turns, and the same output."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headway.evaluation.exact_match import left_padded
from headway.model import HeadwayModel


@dataclass(frozen=True)
class Speed:
    """Ratios are of whole calls, speculative over plain, one a repeat; seconds depend on the machine, ratios less so."""

    ratios: list[float]
    tokens_per_second: float  # speculative, median
    plain_tokens_per_second: float
    tokens_per_forward: float
    acceptance: list[float]
    identical: bool  # whether both wrote the same tokens
    threads: int
    batch: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def speed(
    model: HeadwayModel, prompts: Sequence[Sequence[int]], max_new_tokens: int = 64, repeats: int = 3, batch: int = 1
) -> Speed:
    """Decode all prompts plainly and with the heads, in turns, `repeats` times after one warm-up."""
    ratios, fast, slow = [], [], []
    stats, identical = None, True
    for repeat in range(repeats + 1):
        totals = {True: [0, 0.0], False: [0, 0.0]}
        tokens, forwards, accepted, reached = 0, 0, [0] * model.count, [0] * model.count
        for start in range(0, len(prompts), batch):
            ids, mask = left_padded(prompts[start : start + batch], model.device)
            outs = {}
            for plain in (True, False) if repeat % 2 else (False, True):
                out = model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, plain=plain)
                outs[plain] = out.sequences
                totals[plain][0] += out.stats.tokens
                totals[plain][1] += sum(out.stats.seconds.values())
                if not plain:
                    tokens, forwards = tokens + out.stats.tokens, forwards + out.stats.forwards
                    for k, (a, r) in enumerate(zip(out.stats.accepted, out.stats.reached, strict=True)):
                        accepted[k] += a
                        reached[k] += r
            identical &= torch.equal(outs[True], outs[False])
        if repeat:  # the first round warms up
            fast.append(totals[False][0] / totals[False][1])
            slow.append(totals[True][0] / totals[True][1])
            ratios.append(fast[-1] / slow[-1])
        stats = (tokens / max(forwards, 1), [a / max(r, 1) for a, r in zip(accepted, reached, strict=True)])
    assert stats is not None
    return Speed(
        ratios,
        statistics.median(fast),
        statistics.median(slow),
        stats[0],
        stats[1],
        identical,
        torch.get_num_threads(),
        batch,
    )
