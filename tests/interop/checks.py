"""What tests of several formats share."""

import torch
from transformers import PreTrainedModel

from headway import HeadwayModel
from tests.tiny import tiny_trunk


def shaken(family: str, trunk: str | PreTrainedModel = "llama", count: int = 3, **options: object) -> HeadwayModel:
    """A model whose heads are no longer as they start."""
    model = HeadwayModel.from_trunk(tiny_trunk(trunk) if isinstance(trunk, str) else trunk, family, count, **options)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def assert_same(ours: HeadwayModel, theirs: HeadwayModel, config: bool = True) -> None:
    """Bit for bit, trunk and heads, and what the heads' config says."""
    assert not config or ours.heads.config == theirs.heads.config
    one, other = ours.state_dict(), theirs.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype, name
