"""Gated LoRA: mask tokens that the trunk itself processes (Samragh et al. 2025, arXiv 2507.11851).

Learned mask tokens m_1, m_2, ... follow a text that ends with token i. m_j has the position of token i + j, attends to the
text up to token i and to m_1, ..., m_j, and predicts token i + j + 1. Low-rank adapters on the trunk's linear layers act on
mask tokens alone, and text tokens do not attend to mask tokens. The trunk's output for the text is therefore bit-identical,
whatever is learned. A small sampler then adds the embedding of the token before the prediction, which the hidden state of a
mask token cannot contain.

Heads of this family run no layers of their own. Training needs one more forward of the trunk, over the text and the mask
tokens of all positions. With n mask tokens, linear layers process n + 1 times as many tokens as a plain forward, and attention
computes (n + 1)^2 times as many scores. In decoding, mask tokens are appended to the verification forward
(`headway.decoding.drafters.mask_tokens`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line
from headway.heads.base import HeadsConfig, HeadStack
from headway.heads.modules.adapters import Adapters, record_linear_layers
from headway.ops.draft_tree import append_mask_tokens
from headway.trunk import ForwardContext, HiddenStates, Masks, TrunkView, eval_mode

RANK = 16  # the paper uses 128 for 8 billion parameters, and reports that much smaller ranks still work
PROBE_TOKENS = 6
TOLERANCE = 0.02  # relative difference of hidden states in half precision if the trunk applies the given masks


class GatedLoraHeads(HeadStack):
    """Embeddings of the mask tokens, adapters of the trunk's linear layers, and the sampler.

    Options: `rank` of the adapters, default 16; `alpha`, where alpha / rank scales the adapters' output, default 2 * rank;
    `sampler`, drafts depend on the token before, default true.
    """

    family = "gated-lora"
    options = frozenset({"rank", "alpha", "sampler"})
    drafting = "masked"
    predicts_hidden_states = True  # the paper's latent consistency loss, on the output of the sampler

    def __init__(self, config: HeadsConfig, adapters: Adapters, embeddings: nn.ParameterList, sampler: "Sampler | None") -> None:
        super().__init__(config)
        self.adapters, self.embeddings, self.sampler = adapters, embeddings, sampler

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        if (rank := options.get("rank", RANK)) < 1:
            raise ConfigError(f"rank is the rank of the adapters' matrices, from 1, not {rank}.")
        dtype, width = view.model.dtype, config.hidden_size
        adapters = Adapters(_adaptable_layers(view), rank, options.get("alpha", 2 * rank) / rank, dtype)
        start = _mean_embedding(view)
        embeddings = nn.ParameterList(start.clone() for _ in range(count))
        sampler = Sampler(width).to(start.device, dtype) if options.get("sampler", True) else None
        return cls(config, adapters, embeddings, sampler)

    @property
    def attends(self) -> bool:
        return False  # the trunk attends, the heads do not

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last if hidden_states.mask_tokens is None else hidden_states.mask_tokens

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        """As in `HeadStack.states`; `hidden` is not read, because mask tokens start from the text."""
        count = self.count if count is None else count
        mask_positions, masks = _mask_token_layout(context, count)
        position_ids = torch.cat([context.position_ids, mask_positions.expand(len(input_ids), -1)], dim=1)
        context_with_masks = context._replace(position_ids=position_ids, masks=masks)
        mask_states = self.run_with_mask_tokens(input_ids, context_with_masks, count).mask_tokens
        assert mask_states is not None
        return super().states(mask_states, input_ids, context, count)

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        """Head k with the token at i + k + 1.

        The recurrent state holds the hidden states of all mask tokens of i, (batch, seq, masks * hidden).
        """
        width = self.config.hidden_size
        state = recurrent_state[..., k * width : (k + 1) * width]
        if self.sampler is not None:
            state = self.sampler(state, context.view.model.get_input_embeddings()(tokens))
        return recurrent_state, state

    def run_with_mask_tokens(
        self, input_ids: Tensor, context: ForwardContext, count: int | None = None, groups: int | None = None
    ) -> HiddenStates:
        view = context.view
        count = self.count if count is None else count
        batch, tokens = input_ids.shape
        groups = tokens if groups is None else groups
        embedded = view.model.get_input_embeddings()(input_ids)
        mask_tokens = torch.stack(list(self.embeddings)[:count]).to(embedded.dtype).repeat(groups, 1).expand(batch, -1, -1)
        with self.adapters.active(view, tokens):
            states = view.run(torch.cat([embedded, mask_tokens], dim=1), *context[1:]).last
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


def _mask_token_layout(context: ForwardContext, count: int) -> tuple[Tensor, Masks]:
    """Positions of the mask tokens of whole sequences, (batch, seq * count), and attention masks with the mask tokens at the end.

    Tokens attend as in the context's masks. A mask token attends as its token does, to itself, and to the earlier mask tokens
    of its token.
    """
    view, position_ids, masks = context[:3]
    one_document = masks is None  # per row, so that all rows have the same positions and masks
    position_ids = (position_ids[:1] if one_document else position_ids).int()
    length = position_ids.shape[1]
    steps = torch.arange(1, count + 1, device=position_ids.device, dtype=torch.int32)
    # beyond the end of the text there is no label, and a position there may exceed the trunk's maximum
    mask_positions = torch.minimum(position_ids[..., None] + steps, position_ids.amax()).flatten(1)
    positions = torch.cat([position_ids, mask_positions], dim=1)
    causal = torch.ones(1, length, length, dtype=torch.bool, device=positions.device).tril()
    allowed = append_mask_tokens(causal if one_document else _among_tokens(masks), count)
    if one_document:
        return mask_positions.long(), view.masks(positions, positions, allowed=allowed)
    below = view.masks(mask_positions, positions, allowed=allowed[:, length:])
    return mask_positions.long(), _stack_masks(masks, below)


def _among_tokens(masks: Masks) -> Tensor:
    """Attention among tokens, bool, (batch, seq, seq). `TrunkView.masks` applies windows if only some layers have a window."""
    mask = masks.get("full_attention", next(iter(masks.values()))) if isinstance(masks, dict) else masks
    assert mask is not None
    return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0


def _stack_masks(tokens: Masks, below: Masks) -> Masks:
    """Attention masks of tokens, (batch, 1, seq, seq), above masks of mask tokens, (batch, 1, m, seq + m).

    Tokens do not attend to mask tokens.
    """
    if isinstance(tokens, dict):
        assert isinstance(below, dict)
        return {kind: _stack_one(mask, below[kind]) for kind, mask in tokens.items()}
    assert isinstance(tokens, Tensor) and isinstance(below, Tensor)
    return _stack_one(tokens, below)


def _stack_one(tokens: Tensor, below: Tensor) -> Tensor:
    blocked = False if tokens.dtype == torch.bool else torch.finfo(tokens.dtype).min
    return torch.cat([F.pad(tokens, (0, below.shape[2]), value=blocked), below], dim=2)


@torch.no_grad()
def _mean_embedding(view: TrunkView) -> Tensor:
    """Mean output of the trunk's embedding layer over all tokens, (hidden,); the output includes the scale of some trunks."""
    table = cast(nn.Embedding, view.model.get_input_embeddings())
    tokens = torch.arange(table.weight.shape[0], device=table.weight.device)
    return (torch.stack([table(part).float().sum(0) for part in tokens.split(4096)]).sum(0) / len(tokens)).to(view.model.dtype)


@torch.no_grad()
def _adaptable_layers(view: TrunkView) -> list[dict[str, nn.Module]]:
    """Linear layers that can have adapters, by name, for each layer of the trunk.

    The trunk runs on a text in which every token is followed by a copy of the next token as mask token. The hidden state of
    the copy must equal the hidden state of the next token; otherwise the trunk ignores the given masks or positions.

    Raises:
        UnsupportedModelError: a layer has no such linear layer, or the trunk ignores the given masks or positions.
    """
    model = view.model

    def refuse(reason: str) -> NoReturn:
        raise UnsupportedModelError(f"{type(model).__name__} cannot have gated-lora heads: {reason}. Use another family.")

    try:
        with eval_mode(model), record_linear_layers(view) as layers:
            ids = torch.arange(1, PROBE_TOKENS + 1, device=model.device)[None] % view.config.vocab_size
            positions = torch.arange(PROBE_TOKENS, device=model.device)[None]
            embedded = model.get_input_embeddings()(ids)
            mask_positions, masks = _mask_token_layout(ForwardContext(view, positions), 1)
            both = torch.cat([embedded, embedded.roll(-1, dims=1)], dim=1)
            plain = view.run(ids, positions, view.masks(positions, positions)).last.float()
            states = view.run(both, torch.cat([positions, mask_positions], dim=1), masks).last.float()
    except UnsupportedModelError:
        raise
    except Exception as error:  # layers of any model: XLM's raise an AssertionError, Beam's a KeyError
        refuse(first_line(error))
    expected = torch.cat([plain, plain[:, 1:]], dim=1)
    if not (states[:, :-1] - expected).norm() <= TOLERANCE * expected.norm():
        refuse("it makes masks or positions of its own")
    if not all(layers):
        refuse(f"its layer {layers.index({})} has no linear layer with an input for every token")
    return layers
