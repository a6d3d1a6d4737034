"""Attention while decoding, against transformers' own sdpa."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headway import HeadwayModel
from headway.decoding import Engine, heads_drafter
from headway.trunk.attention import GQA_PACKED, SDPA_FLOAT64, gqa_packed_sdpa, gqa_packed_sdpa_float64, use_decode_attention
from tests.references import submit
from tests.tiny import tiny_trunk


class Layer(nn.Module):
    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def states(groups: int, queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(groups * 100 + queries)
    shapes = (3, 2 * groups, queries, 8), (3, 2, keys, 8), (3, 2, keys, 8)
    return tuple(torch.randn(shape, generator=g) for shape in shapes)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("attend", [gqa_packed_sdpa, gqa_packed_sdpa_float64])
def test_masked_attention_is_that_of_transformers(groups: int, queries: int, attend) -> None:
    query, key, value = states(groups, queries, 9)
    seen = torch.arange(9) <= torch.arange(queries)[:, None] + torch.tensor([2, 5, 4])[:, None, None]
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    ours, _ = attend(Layer(groups), query, key, value, added, scaling=0.3)
    theirs, _ = sdpa_attention_forward(Layer(groups), query, key, value, seen[:, None], scaling=0.3)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (9, 9)])
def test_no_mask_means_all_keys_for_one_query_and_the_past_for_a_whole_text(groups: int, queries: int, keys: int) -> None:
    query, key, value = states(groups, queries, keys)
    ours, _ = gqa_packed_sdpa(Layer(groups), query, key, value, None)
    theirs, _ = sdpa_attention_forward(Layer(groups), query, key, value, None)
    torch.testing.assert_close(ours, theirs)


def test_the_switch_is_taken_back_even_after_an_error() -> None:
    config = LlamaConfig(attn_implementation="sdpa")
    with pytest.raises(RuntimeError), use_decode_attention(config):
        assert config._attn_implementation == GQA_PACKED["sdpa"]
        with use_decode_attention(config):
            assert config._attn_implementation == GQA_PACKED["sdpa"]
        raise RuntimeError
    assert config._attn_implementation == "sdpa"
    for kept in ("eager", GQA_PACKED[SDPA_FLOAT64]):
        config._attn_implementation = kept
        with use_decode_attention(config):
            assert config._attn_implementation == kept


@pytest.mark.parametrize("implementation", ["sdpa", SDPA_FLOAT64])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text", "gpt2"])
def test_who_runs_the_trunk_while_it_decodes_gets_what_it_gets_otherwise(architecture: str, implementation: str) -> None:
    trunk = tiny_trunk(architecture)
    trunk.set_attn_implementation(implementation)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 61, (3, 12), generator=generator)
    mask = (torch.arange(12) >= torch.tensor([[5], [0], [2]])).long()

    def others() -> list[torch.Tensor]:
        with torch.no_grad():
            padded = trunk(ids, attention_mask=mask).logits[mask.bool()]
            return [padded, trunk(ids).logits, trunk.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)]

    expected = others()
    found: list[torch.Tensor] = []
    engine = Engine(HeadwayModel.from_trunk(trunk, count=2).eval(), heads_drafter())
    submit(engine, [5, 6], max_new_tokens=12, on_tokens=lambda tokens: found.extend(() if found else others()))
    engine.run()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
