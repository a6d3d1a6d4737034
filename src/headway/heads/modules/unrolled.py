"""Recursive heads that attend, over whole texts at once: what they would say in decoding, at every position and of every step.

This is the training-time test of EAGLE-3 (Li et al. 2025, arXiv 2503.01840, section 3.2 and figure 6). Step k at i, which stands at
position i + k, goes on from what step k - 1 carried at i. It attends to the first step's keys of the text up to i, and of later
steps to those at i alone: the drafts on its own path.
"""

from typing import Any

import torch
from torch import Tensor

from headway.heads.base import HeadStack
from headway.trunk import ForwardContext, Masks


def unrolled(
    heads: HeadStack,
    hidden: Tensor,
    input_ids: Tensor,
    context: ForwardContext,
    count: int,
    teacher_targets: int | None = None,
) -> list[Tensor]:
    """States of the first `count` steps, each (batch, seq, hidden); arguments as of `HeadStack.states`.

    taught: how many steps learn; those after them have no gradient.
    """
    found: list[Tensor] = []
    keys: StepKeys | None = None
    learns = torch.is_grad_enabled()
    for k in range(count):
        # past the end of a row or a segment the token is a wrong one: no label reads those positions
        tokens = torch.roll(input_ids, -(k + 1), dims=1)
        keys = StepKeys(keys)
        at_step = context if k == 0 else context._replace(position_ids=context.position_ids + k, masks=masks_of_step(k, context))
        with torch.set_grad_enabled(learns and (teacher_targets is None or k < teacher_targets)):
            hidden, state = heads.step(k, hidden, tokens, at_step._replace(cache=keys))
        found.append(state)
    return found


def masks_of_step(k: int, context: ForwardContext) -> Masks:
    """What step `k` sees of the keys of all steps up to it, laid end to end; `context` is that of the first step."""
    rows = context.position_ids if context.masks is not None else context.position_ids[:1]  # without masks all rows are alike
    rows = rows.int()  # numbers of (batch, queries, keys) are made of them
    segments = (rows == 0).cumsum(1)
    index = torch.arange(rows.shape[1], device=rows.device)
    text, path = index <= index[:, None], index == index[:, None]
    return context.view.masks(
        rows + k,
        torch.cat([rows + step for step in range(k + 1)], dim=1),
        segments,
        segments.repeat(1, k + 1),
        allowed=torch.cat([text, *[path] * k], dim=1)[None],
    )


class StepKeys:
    """Stands in for a cache: keys and values of one step behind those of the steps before it."""

    def __init__(self, before: "StepKeys | None") -> None:
        self.before = before
        self.own: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(batch, heads, seq, width) -> (batch, heads, steps * seq, width); run again, as checkpointing does, it gives the same."""
        self.own = keys, values
        if self.before is None:
            return keys, values
        steps = [*self.before.steps(), self.own]
        return torch.cat([k for k, _ in steps], dim=2), torch.cat([v for _, v in steps], dim=2)

    def steps(self) -> list[tuple[Tensor, Tensor]]:
        earlier = [] if self.before is None else self.before.steps()
        return earlier if self.own is None else [*earlier, self.own]
