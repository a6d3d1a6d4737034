"""`DraftableModel`: the parts of a model that decoding needs, so that decoding does not import the model's class."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from headway.heads import HeadStack
from headway.ops import Unembedding
from headway.trunk import TrunkView


class DraftableModel(Protocol):
    """A trunk, unmodified, with or without heads; `headway.HeadwayModel` is one."""

    trunk: PreTrainedModel
    heads: HeadStack | None
    training: bool

    def modules(self) -> Iterator[nn.Module]: ...

    @property
    def view(self) -> TrunkView:
        """Read-only access to the trunk's parts."""

    @property
    def count(self) -> int:
        """Number of heads; 0 without any."""

    @property
    def device(self) -> torch.device:
        """Device of the trunk's weights."""

    @property
    def unembedding(self) -> Unembedding:
        """The trunk's unembedding (`lm_head`)."""
