"""The factory of heads builds the drafter of the family, and refuses models and trees that do not fit."""

import pytest

from headway import HeadwayModel
from headway.decoding import RaggedKVCache, heads_drafter
from headway.decoding.drafters.base import build_drafter
from headway.decoding.drafters.chained import ChainedDrafter
from headway.decoding.drafters.mask_tokens import MaskTokenDrafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.decoding.drafters.recursive import RecursiveDrafter
from headway.errors import ConfigError
from tests.tiny import tiny_trunk


@pytest.mark.parametrize(
    ("family", "drafter"),
    [
        ("parallel", ParallelDrafter),
        ("medusa", ParallelDrafter),
        ("sequential", ChainedDrafter),
        ("hydra", RecursiveDrafter),
        ("eagle", RecursiveDrafter),
        ("gated-lora", MaskTokenDrafter),
    ],
)
def test_every_way_of_drafting_has_its_drafter(family, drafter):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=2)
    assert type(build_drafter(heads_drafter(), model, RaggedKVCache(1, 8))) is drafter


def test_a_model_without_heads_is_refused():
    with pytest.raises(ConfigError, match="no heads to draft with"):
        build_drafter(heads_drafter(), HeadwayModel.from_trunk(tiny_trunk(), count=0), RaggedKVCache(1, 8))
