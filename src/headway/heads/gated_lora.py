"""Mask tokens that the trunk itself answers (Samragh et al. 2025, arXiv 2507.11851).

Behind a text stand learnt tokens m_1, m_2, ...; m_j stands where token i + j would, sees the text up to token i and the masks
before it, and is answered with token i + j + 1. Low-rank adapters on the trunk's linear layers act on masks alone and no
token sees a mask, so what the trunk says of the text is the same bit for bit, whatever is learnt. A small sampler then
looks at the token before, which the answer of a mask alone cannot know.

Heads of this family have no layers to run. In training one more pass of the trunk runs over the text and behind it the masks of
all its positions: for n masks, n + 1 times the tokens of a plain pass in linear layers, and (n + 1)^2 times the scores in
attention. In decoding masks ride in the forward that verifies drafts (`headway.decoding.drafters.mask_tokens`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line
from headway.heads.base import HeadsConfig, HeadStack
from headway.heads.modules.adapters import Adapters, recording
from headway.ops.draft_tree import append_mask_tokens
from headway.trunk import ForwardContext, HiddenStates, Masks, TrunkView, eval_mode

RANK = 16  # the paper's 128 is for 8 billion parameters, and it finds that far fewer still work
PROBE = 6  # tokens
TOLERANCE = 0.02  # of states whose masks are followed; in half precision, where nothing is exact


class GatedLoraHeads(HeadStack):
    """Options: `rank` of the adapters, 16 if not given; `alpha`, which over the rank is their scale, twice the rank if not given;
    `sampler`, whether drafts look at the token before theirs, true if not given."""

    family = "gated-lora"
    options = frozenset({"rank", "alpha", "sampler"})
    drafting = "masked"
    predicts_hidden_states = True  # the paper's latent consistency, of what the sampler makes of a mask's state

    def __init__(self, config: HeadsConfig, adapters: Adapters, embeddings: nn.ParameterList, sampler: "Sampler | None") -> None:
        super().__init__(config)
        self.adapters, self.embeddings, self.sampler = adapters, embeddings, sampler

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        made = cls.config_for(view, count, options)
        if (rank := options.get("rank", RANK)) < 1:
            raise ConfigError(f"rank is that of the adapters' matrices, from 1, not {rank}.")
        dtype, width = view.model.dtype, made.hidden_size
        adapters = Adapters(_adapted(view), rank, options.get("alpha", 2 * rank) / rank, dtype)
        start = _mean_embedding(view)
        embeddings = nn.ParameterList(start.clone() for _ in range(count))
        sampler = Sampler(width).to(start.device, dtype) if options.get("sampler", True) else None
        return cls(made, adapters, embeddings, sampler)

    @property
    def attends(self) -> bool:
        return False  # beyond what the trunk does

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last if hidden_states.mask_tokens is None else hidden_states.mask_tokens

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        """As those of all families; `hidden` is not read, for masks start from the text."""
        count = self.count if count is None else count
        ahead, every = _whole(context, count)
        position_ids = torch.cat([context.position_ids, ahead.expand(len(input_ids), -1)], dim=1)
        answered = self.run_with_mask_tokens(input_ids, context._replace(position_ids=position_ids, masks=every), count).mask_tokens
        assert answered is not None
        return super().states(answered, input_ids, context, count)

    def step(self, k: int, carried: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        """Head k after the token at i + k + 1; carried, (batch, seq, masks * hidden): the states of all masks behind i."""
        width = self.config.hidden_size
        state = carried[..., k * width : (k + 1) * width]
        return carried, state if self.sampler is None else self.sampler(state, context.view.model.get_input_embeddings()(tokens))

    def run_with_mask_tokens(
        self, input_ids: Tensor, context: ForwardContext, count: int | None = None, groups: int | None = None
    ) -> HiddenStates:
        view = context.view
        count = self.count if count is None else count
        batch, tokens = input_ids.shape
        groups = tokens if groups is None else groups
        embedded = view.model.get_input_embeddings()(input_ids)
        own = torch.stack(list(self.embeddings)[:count]).to(embedded.dtype).repeat(groups, 1).expand(batch, -1, -1)
        with self.adapters.opened(view, tokens):
            states = view.run(torch.cat([embedded, own], dim=1), *context[1:]).last
        return HiddenStates(states[:, :tokens], mask_tokens=states[:, tokens:].reshape(batch, groups, -1))

    def checkpoint_names(self) -> dict[str, str]:
        return {name: name.replace("-", ".") for name in super().checkpoint_names()}

    def read_tensors(self, folder: Path) -> None:
        if self.config.layers != len(self.adapters):
            raise CheckpointError(
                f"The heads in {folder} adapt a trunk of {self.config.layers} layers, but this trunk has {len(self.adapters)}."
            )
        super().read_tensors(folder)

    def extra_repr(self) -> str:
        return f"count={self.count}"


class Sampler(nn.Module):
    """[mask's state; embedding of the token before] -> state, by two blocks of a linear layer, SiLU and a norm, as published.

    Added to the mask's state, and zero at first, so that before any training drafts are the masks' own answers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.LayerNorm(width)) for inputs in (2 * width, width))
        )
        nn.init.zeros_(cast(nn.LayerNorm, cast(nn.Sequential, self.blocks[1])[2]).weight)

    def forward(self, state: Tensor, embedded: Tensor) -> Tensor:
        """Both (..., width) -> (..., width)."""
        return state + self.blocks(torch.cat([state, embedded], dim=-1))


def _whole(context: ForwardContext, count: int) -> tuple[Tensor, Masks]:
    """Where the masks of whole sequences stand, (batch, seq * count), and who sees whom once they follow the tokens.

    Tokens see what the context's masks let them see; masks what their token sees, itself and the masks of that token before them.
    """
    view, position_ids, masks = context[:3]
    alike = masks is None  # every row is one document: what holds for one row holds for all
    position_ids = (position_ids[:1] if alike else position_ids).int()
    length = position_ids.shape[1]
    steps = torch.arange(1, count + 1, device=position_ids.device, dtype=torch.int32)
    # beyond the end of the text there is nothing to answer, and positions there may be more than the trunk has
    ahead = torch.minimum(position_ids[..., None] + steps, position_ids.amax()).flatten(1)
    every = torch.cat([position_ids, ahead], dim=1)
    seen = torch.ones(1, length, length, dtype=torch.bool, device=every.device).tril() if alike else _seen(masks)
    allowed = append_mask_tokens(seen, count)
    if alike:
        return ahead.long(), view.masks(every, every, allowed=allowed)
    return ahead.long(), _stacked(masks, view.masks(ahead, every, allowed=allowed[:, length:]))


def _seen(masks: Masks) -> Tensor:
    """Which tokens see which, (batch, seq, seq); windows are left to `TrunkView.masks` where some layers have none."""
    mask = masks.get("full_attention", next(iter(masks.values()))) if isinstance(masks, dict) else masks
    assert mask is not None
    return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0


def _stacked(tokens: Masks, below: Masks) -> Masks:
    """Rows of tokens, (batch, 1, seq, seq), that see nothing of what `below`, (batch, 1, more, seq + more), are the rows of."""
    if isinstance(tokens, dict):
        assert isinstance(below, dict)
        return {kind: _stacked_one(mask, below[kind]) for kind, mask in tokens.items()}
    assert isinstance(tokens, Tensor) and isinstance(below, Tensor)
    return _stacked_one(tokens, below)


def _stacked_one(tokens: Tensor, below: Tensor) -> Tensor:
    unseen = False if tokens.dtype == torch.bool else torch.finfo(tokens.dtype).min
    return torch.cat([F.pad(tokens, (0, below.shape[2]), value=unseen), below], dim=2)


@torch.no_grad()
def _mean_embedding(view: TrunkView) -> Tensor:
    """Of all tokens, as the trunk's table gives them and not as it holds them: some scale them on the way out; (hidden,)."""
    table = cast(nn.Embedding, view.model.get_input_embeddings())
    every = torch.arange(table.weight.shape[0], device=table.weight.device)
    return (torch.stack([table(part).float().sum(0) for part in every.split(4096)]).sum(0) / len(every)).to(view.model.dtype)


@torch.no_grad()
def _adapted(view: TrunkView) -> list[dict[str, nn.Module]]:
    """The linear layers of each layer of the trunk that can have adapters, by their names in it.

    Raises UnsupportedModelError where a layer has none, or where masks that embed the token in whose place they stand are not
    answered as that token is: such a trunk makes masks or positions of its own.
    """
    model = view.model

    def refuse(reason: str) -> NoReturn:
        raise UnsupportedModelError(f"{type(model).__name__} cannot have gated-lora heads: {reason}. Use another family.")

    try:
        with eval_mode(model), recording(view) as found:
            ids = torch.arange(1, PROBE + 1, device=model.device)[None] % view.config.vocab_size
            positions = torch.arange(PROBE, device=model.device)[None]
            embedded = model.get_input_embeddings()(ids)
            ahead, every = _whole(ForwardContext(view, positions), 1)
            both = torch.cat([embedded, embedded.roll(-1, dims=1)], dim=1)
            plain = view.run(ids, positions, view.masks(positions, positions)).last.float()
            states = view.run(both, torch.cat([positions, ahead], dim=1), every).last.float()
    except UnsupportedModelError:
        raise
    except Exception as error:  # layers of any model: XLM's raise an AssertionError, Beam's a KeyError
        refuse(first_line(error))
    expected = torch.cat([plain, plain[:, 1:]], dim=1)
    if not (states[:, :-1] - expected).norm() <= TOLERANCE * expected.norm():
        refuse("it makes masks or positions of its own")
    if not all(found):
        refuse(f"its layer {found.index({})} has no linear layer that gets every token's state")
    return found
