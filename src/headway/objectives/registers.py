"""Registers (MuToR; Gerontopoulos et al. 2025, arXiv 2505.10518, section 3): learnt tokens that look further ahead.

A register after x_t predicts x_{t+d} from the position of x_{t+d-1}, as if x_{t+1} to x_{t+d-1} were left out of a next-token
step. It sees the tokens up to x_t and itself; nothing sees it. So the tokens' own predictions are those of the plain
text, no layer is added, and once training is over the registers are dropped.

L = (1 - a) * L_1 + a * L_registers, plus the losses of the heads, where there are any. Sums over registers are divided by the
number of next-token labels, times their share of positions, as all offsets are.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from headway.errors import ConfigError, UnsupportedModelError, first_line
from headway.model import HeadwayModel, positions_of
from headway.objectives.base import Batch, Loss, Objective, TokenObjective
from headway.objectives.multi_token import MultiToken, head_losses
from headway.objectives.settings import ObjectiveSettings
from headway.objectives.token_losses import by_offset
from headway.objectives.with_heads import carry_heads
from headway.ops import IGNORE, linear_cross_entropy, shift_labels
from headway.ops.noise import document_seeds, uniform
from headway.trunk import Masks, TrunkView, eval_mode

STEPS = 2**40  # of progress that draw differently
PROBE = 6  # tokens


class Located(NamedTuple):
    """Registers of a batch, each (batch, registers); rows that have fewer are filled up with registers that learn nothing."""

    after: Tensor  # index in its row of the token it stands behind
    offsets: Tensor  # d: how far ahead it looks
    labels: Tensor  # what it predicts, -100 in filling


class Registers(TokenObjective, nn.Module):
    """The objective; its one parameter is the registers' embedding, (hidden,), at first the mean of the tokens'.

    An offset is drawn for each document anew at every step. Draws depend on the document, on the progress of the run and on the
    seed alone: neither packing, batches nor processes change them, and a resumed run repeats them.

    Args:
        model: what will be trained.
        offsets: the furthest a register looks, d_max; d is drawn from 1..d_max.
        weight: a, in (0, 1).
        share: of the positions with something to predict, how many have a register, in (0, 1].
        heads: weights of the losses of trunk and heads; None: the trunk alone.
        seed: of the draws.
    Raises: ConfigError for a number out of range, UnsupportedModelError where the trunk's attention cannot be told
        what registers may see.
    """

    def __init__(
        self,
        model: HeadwayModel,
        offsets: int = 4,
        weight: float = 0.3,
        share: float = 1.0,
        heads: MultiToken | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if offsets < 1:
            raise ConfigError(f"Registers look at least 1 token ahead, not {offsets}.")
        if not 0 < weight < 1 or not 0 < share <= 1:
            raise ConfigError(f"The weight of registers lies between 0 and 1, their share above 0 up to 1: {weight}, {share}.")
        check_takes_registers(model.view)
        self.offsets, self.weight, self.share, self.seed = offsets, weight, share, seed
        self.heads = heads
        table = cast(nn.Embedding, model.trunk.get_input_embeddings())
        with torch.no_grad():
            every = torch.arange(table.weight.shape[0], device=table.weight.device)
            # what the table gives, not what it holds: some trunks scale it on the way out
            mean = torch.stack([table(part).float().sum(0) for part in every.split(4096)]).sum(0) / len(every)
        self.embedding = nn.Parameter(mean.to(table.weight.dtype))

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        ids, labels, prefix = batch["input_ids"], batch["labels"], batch.get("prefix")
        segments = batch.get("segments")
        segments = torch.zeros_like(ids) if segments is None else segments
        positions, masks = model.layout(ids, segments, prefix)
        # what is only measured is measured with the same offsets every time
        placed = self.place(ids, labels, segments, progress if self.training else 0.0)
        embedded = model.trunk.get_input_embeddings()(ids)
        registers = self.embedding.to(embedded.dtype).expand(*placed.after.shape, -1)
        hidden_states = model.run(
            torch.cat([embedded, registers], dim=1), *interleaved(model.view, segments, placed, prefix=prefix)
        )
        length = ids.shape[1]
        own = hidden_states.each(lambda states: states[:, :length])
        weights = [1.0] if self.heads is None else self.heads.weights(model.count, progress)
        count = len(weights) - 1
        states = [*model.run_heads(own, ids, positions, masks, count).hidden_states, hidden_states.last[:, length:]]
        targets = [*(shift_labels(labels, k + 1, segments) for k in range(len(states) - 1)), placed.labels]
        if items is None:
            items = (targets[0] != IGNORE).sum().clamp(min=1)
        total, means = linear_cross_entropy(
            [state.flatten(0, 1) for state in states],
            [target.flatten() for target in targets],
            [*model.unembeddings[: count + 1], model.unembedding],
            [weights[0] * (1 - self.weight), *weights[1:], self.weight / self.share],
            items,
        )
        none = (placed.labels != IGNORE).sum() == 0
        return Loss(total, by_offset(means[:-1]) | {"loss_registers": means[-1].masked_fill(none, float("nan"))})

    def place(self, input_ids: Tensor, labels: Tensor, segments: Tensor, progress: float) -> Located:
        """Where the registers of a batch stand, and what each predicts; all arguments (batch, seq) but the progress.

        There is at least one a row, so that every process of a distributed run has a gradient for the embedding.
        """
        positions = positions_of(segments)
        seeds = document_seeds(input_ids, positions, segments, self.seed * STEPS + int(progress * STEPS))
        offsets = 1 + (uniform(seeds) * self.offsets).long()
        targets = torch.full_like(labels, IGNORE)
        for d in range(1, self.offsets + 1):
            targets = torch.where(offsets == d, shift_labels(labels, d, segments), targets)
        chosen = uniform(seeds, positions + 1) < self.share
        targets = targets.masked_fill(~chosen, IGNORE)
        predicts = targets != IGNORE
        most = max(int(predicts.sum(1).max()), 1)
        after = torch.argsort(~predicts, dim=1, stable=True)[:, :most]
        return Located(after, offsets.gather(1, after), targets.gather(1, after))


def interleaved(view: TrunkView, segments: Tensor, placed: Located, prefix: Tensor | None = None) -> tuple[Tensor, Masks]:
    """Positions, (batch, seq + registers), and masks of rows followed by their registers.

    Attention knows no order but by positions and masks, so registers at the end of a row are as good as between its tokens, and the
    tokens' own states stay in one piece.
    """
    length, count = segments.shape[1], placed.after.shape[1]
    index = torch.arange(length + count, device=segments.device)
    behind = torch.cat([index[:length].expand_as(segments), placed.after], dim=1)
    own = positions_of(segments)
    filling = placed.labels == IGNORE
    ahead = torch.where(filling, 0, placed.offsets - 1)
    positions = torch.cat([own, own.gather(1, placed.after) + ahead], dim=1)
    owners = torch.cat([segments, segments.gather(1, placed.after)], dim=1)
    # tokens see tokens, registers the tokens up to the one they stand behind, and themselves
    allowed = (index[:length] <= behind[:, :, None]) | (index < length)[:, None]
    if prefix is not None:
        none = torch.zeros_like(placed.after, dtype=torch.bool)
        prefix = torch.cat([prefix.bool(), none], dim=1)
    itself = (index[:, None] == index[length:]).expand(len(segments), -1, -1)
    seen = torch.cat([allowed, itself], dim=2)
    return positions, view.masks(positions, positions, owners, owners, allowed=seen, prefix=prefix)


@torch.no_grad()
def check_takes_registers(view: TrunkView) -> None:
    """Raise UnsupportedModelError unless the trunk follows the masks and positions that it is given.

    Registers with the embedding of the token one ahead, in its place, must have that token's own states.
    """
    model, config = view.model, view.config
    try:
        with eval_mode(model):
            ids = torch.arange(1, PROBE + 1, device=model.device)[None] % config.vocab_size
            segments = torch.zeros_like(ids)
            after = torch.arange(PROBE - 1, device=model.device)[None]
            placed = Located(after, torch.full_like(after, 2), ids[:, 1:])
            embedded = model.get_input_embeddings()(ids)
            both = torch.cat([embedded, embedded[:, 1:]], dim=1)
            plain = view.run(ids, positions_of(segments), view.masks(positions_of(segments), positions_of(segments))).last.float()
            found = view.run(both, *interleaved(view, segments, placed)).last.float()
    except UnsupportedModelError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedModelError(f"{type(model).__name__} cannot be run with registers: {first_line(error)}") from error
    expected = torch.cat([plain, plain[:, 1:]], dim=1)
    if (found - expected).norm() > 0.02 * expected.norm():
        raise UnsupportedModelError(
            f"{type(model).__name__} makes masks or positions of its own, so registers would be seen: use another objective."
        )


def build(settings: ObjectiveSettings, model: HeadwayModel, adapters: Any = None) -> Objective:
    """Registers beside the trunk's own loss, and the losses of heads if the model has any."""

    def registers(heads: MultiToken | None) -> Registers:
        return Registers(model, settings.register_offsets, settings.register_weight, settings.register_share, heads, settings.seed)

    if not model.count or settings.heads_gradient == "joint":
        return registers(head_losses(settings))
    return carry_heads(registers(None), head_losses(settings, next_token=False), settings.heads_gradient)
