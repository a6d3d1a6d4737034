"""Recursive heads with attention over whole texts: the same states as in decoding, for every position and step at once.

This is the training-time test of EAGLE-3 (Li et al. 2025, arXiv 2503.01840, section 3.2 and figure 6). Step k at i has
position i + k and continues from the recurrent state of step k - 1 at i. Step k attends to the keys of step 0 for the text up
to i, and to the keys
of steps 1 to k at i alone: the drafts on the path.
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
    trained_steps: int | None = None,
) -> list[Tensor]:
    """Hidden states of the first `count` steps, (batch, seq, hidden) per step.

    Args:
        hidden, input_ids, context, count: as in `HeadStack.states`.
        trained_steps: number of steps with a gradient; None: all.
    """
    states: list[Tensor] = []
    keys: StepKeys | None = None
    learns = torch.is_grad_enabled()
    for k in range(count):
        # past the end of a row or a segment the token is wrong; no label reads the state there
        tokens = torch.roll(input_ids, -(k + 1), dims=1)
        keys = StepKeys(keys)
        at_step = context if k == 0 else context._replace(position_ids=context.position_ids + k, masks=masks_of_step(k, context))
        with torch.set_grad_enabled(learns and (trained_steps is None or k < trained_steps)):
            hidden, state = heads.step(k, hidden, tokens, at_step._replace(cache=keys))
        states.append(state)
    return states


def masks_of_step(k: int, context: ForwardContext) -> Masks:
    """Attention masks of step k over the concatenated keys of steps 0 to k; `context` belongs to step 0."""
    rows = context.position_ids if context.masks is not None else context.position_ids[:1]  # without masks all rows are equal
    rows = rows.int()  # halves the memory of (batch, queries, keys)
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
    """Cache of a step: keys and values of earlier steps, followed by keys and values of this step."""

    def __init__(self, before: "StepKeys | None") -> None:
        self.before = before
        self.own: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(batch, heads, seq, width) -> (batch, heads, steps * seq, width); a repeated call, as in checkpointing, is safe."""
        self.own = keys, values
        if self.before is None:
            return keys, values
        steps = [*self.before.steps(), self.own]
        return torch.cat([k for k, _ in steps], dim=2), torch.cat([v for _, v in steps], dim=2)

    def steps(self) -> list[tuple[Tensor, Tensor]]:
        earlier = [] if self.before is None else self.before.steps()
        return earlier if self.own is None else [*earlier, self.own]
