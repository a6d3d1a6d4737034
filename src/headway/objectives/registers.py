"""Registers (MuToR; Gerontopoulos et al. 2025, arXiv 2505.10518, section 3): learnt tokens that predict later tokens.

A register after x_t predicts x_{t+d} from the position of x_{t+d-1}, as a next-token step without x_{t+1} to x_{t+d-1} would. A
register attends to the tokens up to x_t and to itself, and no token attends to a register. Predictions of the tokens are therefore
those of the text without registers. No layer is added, and the registers are dropped after training.

L = (1 - a) * L_1 + a * L_registers, plus the losses of heads if there are any. Sums over registers are divided by the number of
next-token labels, as all offsets are, times the share of positions that have a register.
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
    """Registers of a batch, each field (batch, registers). Rows with fewer registers are padded with registers without a label.

    Args:
        after: index of the token before the register.
        offsets: offset d of the predicted token.
        labels: predicted token, -100 in padding.
    """

    after: Tensor
    offsets: Tensor
    labels: Tensor


class Registers(TokenObjective, nn.Module):
    """Loss of the trunk with registers. The only parameter is the embedding of the registers, (hidden,), initially the mean of
    the token embeddings.

    Every document gets a random offset in every step. Random numbers depend on the document, the progress of the run and the seed
    alone. Packing, batches and processes do not change them, and a resumed run repeats them.

    Args:
        model: the model that will be trained.
        offsets: largest offset d_max; d is drawn from 1..d_max.
        weight: weight a of the registers, in (0, 1).
        share: share of the positions with a label that have a register, in (0, 1].
        heads: weights of the losses of trunk and heads; None: the trunk alone.
        seed: seed of the random offsets.
    Raises:
        ConfigError: a number is out of range.
        UnsupportedModelError: the trunk does not follow attention masks and positions.
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
            raise ConfigError(f"Registers predict at least 1 token ahead, not {offsets}.")
        if not 0 < weight < 1 or not 0 < share <= 1:
            raise ConfigError(f"The weight of registers lies between 0 and 1, their share above 0 up to 1: {weight}, {share}.")
        check_takes_registers(model.view)
        self.offsets, self.weight, self.share, self.seed = offsets, weight, share, seed
        self.heads = heads
        table = cast(nn.Embedding, model.trunk.get_input_embeddings())
        with torch.no_grad():
            every = torch.arange(table.weight.shape[0], device=table.weight.device)
            # outputs of the embedding and not its matrix: some trunks scale the output
            mean = torch.stack([table(part).float().sum(0) for part in every.split(4096)]).sum(0) / len(every)
        self.embedding = nn.Parameter(mean.to(table.weight.dtype))

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        ids, labels, prefix = batch["input_ids"], batch["labels"], batch.get("prefix")
        segments = batch.get("segments")
        segments = torch.zeros_like(ids) if segments is None else segments
        positions, masks = model.layout(ids, segments, prefix)
        # evaluation uses the same offsets every time
        located = self.locate(ids, labels, segments, progress if self.training else 0.0)
        embedded = model.trunk.get_input_embeddings()(ids)
        registers = self.embedding.to(embedded.dtype).expand(*located.after.shape, -1)
        hidden_states = model.run(
            torch.cat([embedded, registers], dim=1), *interleaved(model.view, segments, located, prefix=prefix)
        )
        length = ids.shape[1]
        own = hidden_states.map(lambda states: states[:, :length])
        weights = [1.0] if self.heads is None else self.heads.weights(model.count, progress)
        count = len(weights) - 1
        states = [*model.run_heads(own, ids, positions, masks, count).hidden_states, hidden_states.last[:, length:]]
        targets = [*(shift_labels(labels, k + 1, segments) for k in range(len(states) - 1)), located.labels]
        if items is None:
            items = (targets[0] != IGNORE).sum().clamp(min=1)
        total, means = linear_cross_entropy(
            [state.flatten(0, 1) for state in states],
            [target.flatten() for target in targets],
            [*model.unembeddings[: count + 1], model.unembedding],
            [weights[0] * (1 - self.weight), *weights[1:], self.weight / self.share],
            items,
        )
        none = (located.labels != IGNORE).sum() == 0
        return Loss(total, by_offset(means[:-1]) | {"loss_registers": means[-1].masked_fill(none, float("nan"))})

    def locate(self, input_ids: Tensor, labels: Tensor, segments: Tensor, progress: float) -> Located:
        """Registers of a batch; all arguments but the progress are (batch, seq).

        A row has at least one register, so that every process of a distributed run has a gradient for the embedding.
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
        count = max(int(predicts.sum(1).max()), 1)
        after = torch.argsort(~predicts, dim=1, stable=True)[:, :count]
        return Located(after, offsets.gather(1, after), targets.gather(1, after))


def interleaved(view: TrunkView, segments: Tensor, located: Located, prefix: Tensor | None = None) -> tuple[Tensor, Masks]:
    """Positions, (batch, seq + registers), and attention masks of rows followed by their registers.

    Attention knows order only by positions and masks. Registers can therefore stand at the end of a row, where hidden states of
    the tokens stay contiguous.
    """
    length, count = segments.shape[1], located.after.shape[1]
    index = torch.arange(length + count, device=segments.device)
    behind = torch.cat([index[:length].expand_as(segments), located.after], dim=1)
    own = positions_of(segments)
    filling = located.labels == IGNORE
    ahead = torch.where(filling, 0, located.offsets - 1)
    positions = torch.cat([own, own.gather(1, located.after) + ahead], dim=1)
    owners = torch.cat([segments, segments.gather(1, located.after)], dim=1)
    # tokens attend to tokens; registers to the tokens before them, and to themselves
    allowed = (index[:length] <= behind[:, :, None]) | (index < length)[:, None]
    if prefix is not None:
        none = torch.zeros_like(located.after, dtype=torch.bool)
        prefix = torch.cat([prefix.bool(), none], dim=1)
    itself = (index[:, None] == index[length:]).expand(len(segments), -1, -1)
    seen = torch.cat([allowed, itself], dim=2)
    return positions, view.masks(positions, positions, owners, owners, allowed=seen, prefix=prefix)


@torch.no_grad()
def check_takes_registers(view: TrunkView) -> None:
    """Raise UnsupportedModelError unless the trunk follows attention masks and positions.

    A register with the embedding and the position of the next token must get the hidden states of that token.
    """
    model, config = view.model, view.config
    try:
        with eval_mode(model):
            ids = torch.arange(1, PROBE + 1, device=model.device)[None] % config.vocab_size
            segments = torch.zeros_like(ids)
            after = torch.arange(PROBE - 1, device=model.device)[None]
            located = Located(after, torch.full_like(after, 2), ids[:, 1:])
            embedded = model.get_input_embeddings()(ids)
            both = torch.cat([embedded, embedded[:, 1:]], dim=1)
            plain = view.run(ids, positions_of(segments), view.masks(positions_of(segments), positions_of(segments))).last.float()
            found = view.run(both, *interleaved(view, segments, located)).last.float()
    except UnsupportedModelError:
        raise
    except Exception as error:  # layers of any model: XLM's raise an AssertionError, Beam's a KeyError
        raise UnsupportedModelError(f"{type(model).__name__} cannot be run with registers: {first_line(error)}") from error
    expected = torch.cat([plain, plain[:, 1:]], dim=1)
    if (found - expected).norm() > 0.02 * expected.norm():
        raise UnsupportedModelError(
            f"{type(model).__name__} makes masks or positions of its own, so tokens would attend to "
            "registers: use another objective."
        )


def build(settings: ObjectiveSettings, model: HeadwayModel, adapters: Any = None) -> Objective:
    """Registers beside the trunk's own loss, and the losses of heads if the model has any."""

    def registers(heads: MultiToken | None) -> Registers:
        return Registers(model, settings.register_offsets, settings.register_weight, settings.register_share, heads, settings.seed)

    if not model.count or settings.heads_gradient == "joint":
        return registers(head_losses(settings))
    return carry_heads(registers(None), head_losses(settings, next_token=False), settings.heads_gradient)
