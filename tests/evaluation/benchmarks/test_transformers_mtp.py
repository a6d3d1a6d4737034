"""transformers' use_mtp runs with Headway's heads and generates the greedy text of the trunk."""

import pytest
import torch

from headway import HeadwayModel
from headway.errors import UnsupportedModelError
from headway.evaluation.benchmarks.transformers_mtp import decoding_with, native_heads
from tests.tiny import tiny_trunk

PROMPT = torch.tensor([[5, 9, 23, 4, 40, 8]])
LENGTH = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}


@pytest.mark.parametrize("count", [1, 3])
def test_use_mtp_drafts_with_the_heads_and_generates_the_greedy_text(count, monkeypatch):
    model = HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=count).eval()
    native = native_heads(model)
    calls = []
    monkeypatch.setattr(native, "forward", lambda *a, _forward=native.forward, **k: calls.append(1) or _forward(*a, **k))
    with decoding_with(native, model):
        out = model.trunk.generate(PROMPT, use_mtp=True, **LENGTH)
    assert calls
    assert torch.equal(out, model.trunk.generate(PROMPT, **LENGTH))
    assert not hasattr(model.trunk.config, "num_mtp_layers")


def test_heads_that_transformers_cannot_hold_are_refused():
    with pytest.raises(UnsupportedModelError, match="sequential"):
        native_heads(HeadwayModel.from_trunk(tiny_trunk(), count=1))
