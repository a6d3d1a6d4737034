"""Losses on text that was not trained on, and how often each head already knows what the trunk will say."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from headway.model import HeadwayModel
from headway.ops import IGNORE, linear_cross_entropy, shift_labels
from headway.trunk import eval_mode


@dataclass(frozen=True)
class HeldOut:
    """losses[0] is the trunk's next-token loss in nats, losses[k + 1] that of head k.

    agreement[k]: share of positions where head k's first choice is the trunk's own first choice for the same token;
    accuracy[k]: share where it is the token of the text. Head k is judged k + 1 tokens before the trunk is.
    """

    losses: list[float]
    agreement: list[float]
    accuracy: list[float]
    tokens: int


@torch.no_grad()
def held_out(model: HeadwayModel, batches: Iterable[dict[str, Tensor]]) -> HeldOut:
    """Measure on batches of input_ids, labels and segments, each (batch, seq)."""
    count = model.count + 1
    sums, items = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    agreed, right = torch.zeros(count - 1, dtype=torch.float64), torch.zeros(count - 1, dtype=torch.float64)
    unembeddings = model.unembeddings
    with eval_mode(model):
        for batch in batches:
            ids, labels, segments = (batch[name].to(model.device) for name in ("input_ids", "labels", "segments"))
            states = model(ids, segments).states
            shifted = [shift_labels(labels, k + 1, segments) for k in range(count)]
            for k, (state, target) in enumerate(zip(states, shifted, strict=True)):
                number = int((target != IGNORE).sum())
                if number:
                    _, means = linear_cross_entropy([state.flatten(0, 1)], [target.flatten()], unembeddings[k], [1.0])
                    sums[k] += float(means[0]) * number
                    items[k] += number
            own = torch.stack([unembeddings[0].logits(row).argmax(-1) for row in states[0]])  # a row of logits at a time
            for k in range(1, count):
                guess = torch.stack([unembeddings[k].logits(row).argmax(-1) for row in states[k]])
                valid = shifted[k] != IGNORE
                later = torch.roll(own, -k, dims=1)
                agreed[k - 1] += int(((guess == later) & valid).sum())
                right[k - 1] += int(((guess == shifted[k]) & valid).sum())
    per = items.clamp(min=1)
    return HeldOut((sums / per).tolist(), (agreed / per[1:]).tolist(), (right / per[1:]).tolist(), int(items[0]))
