"""Compiled rounds give the tokens of eager ones. Compiling takes a while: few models, few forms."""

import shutil
from itertools import pairwise

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from headway import HeadwayModel
from headway.decoding import Engine, RaggedKVCache, heads_drafter
from headway.decoding.compiled import compiled, compiled_draft_sizes, worthwhile
from headway.errors import ConfigError
from tests.references import padded, submit
from tests.tiny import tiny_trunk

ROWS = [[5, 9, 23, 4, 40, 8], [7, 31, 8], [12]]
needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="compiling needs a C++ compiler"
)


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.parametrize(
    ("architecture", "tree"), [("llama", "chain"), ("gemma3_text", [(0,), (1,), (0, 0)])], ids=["chain", "tree, two kinds of mask"]
)
def test_compiled_rounds_say_what_the_trunk_says(architecture, tree):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), count=3).eval()
    ids, mask = padded(ROWS, "left")
    length = {"max_new_tokens": 24, "eos_token_id": None, "pad_token_id": 0}
    expected = model.trunk.generate(ids, attention_mask=mask, do_sample=False, **length)
    drafter = heads_drafter(tree, compile=True)
    for _ in range(2):
        out = model.generate(ids, attention_mask=mask, drafter=drafter, adaptive=False, compile=True, **length)
        assert torch.equal(out.sequences, expected)
        forms = len(compiled(model)._seen)
    eager = model.generate(ids, attention_mask=mask, drafter=heads_drafter(tree), adaptive=False, **length)
    assert out.stats.num_accepted_tokens_per_pos == eager.stats.num_accepted_tokens_per_pos
    assert 2 <= forms <= 4


@pytest.mark.slow
@needs_a_compiler
def test_a_model_that_changed_between_two_calls_is_compiled_anew():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0).eval()
    ids, mask = padded(ROWS, "left")
    length = {"max_new_tokens": 100, "eos_token_id": None, "pad_token_id": 0}  # past the keys that one form looks at at first
    seen = []
    for change in (None, "weights", "module", "scale"):
        if change == "weights":
            torch.nn.init.normal_(model.trunk.lm_head.weight, std=0.5)
            torch.nn.init.normal_(model.trunk.model.layers[0].mlp.up_proj.weight)
        elif change == "module":
            model.trunk.model.layers[1].mlp = torch.nn.Identity()
        elif change == "scale":
            model.trunk.model.layers[0].self_attn.scaling = 3.0
        expected = model.trunk.generate(ids, attention_mask=mask, do_sample=False, **length)
        assert torch.equal(model.generate(ids, attention_mask=mask, compile=True, **length).sequences, expected)
        seen.append(expected.tolist())
    assert all(a != b for a, b in pairwise(seen))


@pytest.mark.slow
@needs_a_compiler
def test_forms_that_are_gone_in_the_middle_of_a_text_are_compiled_again():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0).eval()
    engine = Engine(model, max_batch_size=1, compile=True)
    row = submit(engine, ROWS[0], max_new_tokens=12, eos_token_id=None)
    while len(row.new_tokens) < 6:
        engine.step()
    torch._dynamo.reset()
    engine.run()
    expected = model.trunk.generate(torch.tensor(ROWS[:1]), do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=0)
    assert row.tokens == expected[0].tolist() and row.error is None


def test_only_whole_forms_are_planned_and_nearly_full_batches_compiled():
    assert compiled_draft_sizes((0, 1, 2, 3, 4, 7, 11, 15, 23)) == (0, 3, 7, 15)
    assert compiled_draft_sizes((0, 1, 2)) == (0, 2)
    cache = RaggedKVCache(16, 64)
    assert worthwhile(torch.zeros(9, 4), cache) and not worthwhile(torch.zeros(8, 4), cache)
    assert not worthwhile(torch.zeros(16, 17), cache)


def test_where_nothing_can_be_compiled_the_error_says_so(monkeypatch):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0).eval()

    def fail(*_args):
        raise TorchDynamoException("no compiler here\nand a long story")

    monkeypatch.setattr(compiled(model), "_trunk", fail)
    with pytest.raises(ConfigError, match=r"\(no compiler here\)"):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, compile=True)
