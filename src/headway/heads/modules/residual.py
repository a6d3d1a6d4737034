"""Parts of heads that are no transformer layers: residual blocks, and unembeddings of a head's own."""

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from headway.heads.base import HeadStack
from headway.ops import Unembedding
from headway.trunk import TrunkView


class ResidualBlock(nn.Module):
    """through(x) + SiLU(W x + b) (Medusa, Cai et al. 2024, arXiv 2401.10774, section 2.1.1; Hydra, arXiv 2402.05109, section 3).

    `through` is x itself, or where there are several inputs of that width a matrix that passes the first one on at first;
    W and b are zero at first.
    """

    def __init__(self, width: int, inputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs * width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.through: nn.Module = nn.Identity()
        if inputs > 1:
            self.through = nn.Linear(inputs * width, width, bias=False)
            nn.init.eye_(self.through.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs * width) -> (..., width)."""
        return self.through(x) + F.silu(self.linear(x))


class DraftLMHeads(nn.Module):
    """One matrix a head, which starts as the trunk's; parameters rather than layers, for those are quantised."""

    def __init__(self, view: TrunkView, count: int, tokens: Tensor | None) -> None:
        super().__init__()
        shared = view.unembedding
        start = shared if tokens is None else shared.restricted(tokens.to(shared.weight.device))
        self.weights = nn.ParameterList(start.weight.detach().clone() for _ in range(count))
        self.biases = nn.ParameterList(start.bias.detach().clone() for _ in range(count) if start.bias is not None)

    def set_draft_vocab(self, tokens: Tensor) -> None:
        for parameters in (self.weights, self.biases):
            for k, old in enumerate(parameters):
                parameters[k] = nn.Parameter(old.detach()[tokens])

    def each(self, view: TrunkView, tokens: Tensor | None) -> list[Unembedding]:
        """What states are read through, of `tokens` alone where the vocabulary is reduced; one a matrix."""
        shared = replace(view.unembedding, tokens=tokens, vocabulary=view.unembedding.size)
        biases = list(self.biases) or [None] * len(self.weights)
        return [replace(shared, weight=weight, bias=bias) for weight, bias in zip(self.weights, biases, strict=True)]


class HiddenStateHeads(HeadStack):
    """Heads that read their states through matrices of their own, or through the trunk's; fewer than heads are used in turn."""

    unembedding: DraftLMHeads | None

    def unembeddings(self, view: TrunkView) -> list[Unembedding]:
        if self.unembedding is None:
            return super().unembeddings(view)
        return (self.unembedding.each(view, self.draft_tokens) * self.count)[: self.count]

    def set_draft_vocab(self, tokens: Tensor) -> None:
        super().set_draft_vocab(tokens)
        if self.unembedding is not None and self.draft_tokens is not None:
            self.unembedding.set_draft_vocab(self.draft_tokens)
