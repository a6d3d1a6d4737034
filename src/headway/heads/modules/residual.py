"""Parts of heads without attention: residual blocks, and unembeddings that belong to the heads."""

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from headway.heads.base import HeadStack
from headway.ops import Unembedding
from headway.trunk import TrunkView


class ResidualBlock(nn.Module):
    """P x + SiLU(W x + b) (Medusa, Cai et al. 2024, arXiv 2401.10774, section 2.1.1; Hydra, arXiv 2402.05109, section 3).

    P, `input_projection`, is the identity for one input. For several inputs of this width P is a matrix that starts as the
    projection on the first input. W and b start at zero.
    """

    def __init__(self, width: int, inputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs * width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.input_projection: nn.Module = nn.Identity()
        if inputs > 1:
            self.input_projection = nn.Linear(inputs * width, width, bias=False)
            nn.init.eye_(self.input_projection.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs * width) -> (..., width)."""
        return self.input_projection(x) + F.silu(self.linear(x))


class DraftLMHeads(nn.Module):
    """One unembedding per head, initialised from the trunk's. Parameters and not layers, because nn.Linear layers are quantised."""

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

    def unembeddings(self, view: TrunkView, tokens: Tensor | None) -> list[Unembedding]:
        """One unembedding per matrix, with the trunk's scale and soft-cap.

        Args:
            tokens: token ids of the reduced vocabulary, (tokens,); None: all tokens.
        """
        shared = replace(view.unembedding, tokens=tokens, vocabulary=view.unembedding.size)
        biases = list(self.biases) or [None] * len(self.weights)
        return [replace(shared, weight=weight, bias=bias) for weight, bias in zip(self.weights, biases, strict=True)]


class HiddenStateHeads(HeadStack):
    """Heads with unembeddings of their own, or with the trunk's. Heads take turns if there are fewer unembeddings than heads."""

    unembedding: DraftLMHeads | None

    def unembeddings(self, view: TrunkView) -> list[Unembedding]:
        if self.unembedding is None:
            return super().unembeddings(view)
        return (self.unembedding.unembeddings(view, self.draft_tokens) * self.count)[: self.count]

    def set_draft_vocab(self, tokens: Tensor) -> None:
        super().set_draft_vocab(tokens)
        if self.unembedding is not None and self.draft_tokens is not None:
            self.unembedding.set_draft_vocab(self.draft_tokens)
