"""Attention while decoding, against transformers' own sdpa."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headway.attention import IN_LINE, SDPA_FLOAT64, attend_in_line, attend_in_line_float64, decoding


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
@pytest.mark.parametrize("attend", [attend_in_line, attend_in_line_float64])
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
    ours, _ = attend_in_line(Layer(groups), query, key, value, None)
    theirs, _ = sdpa_attention_forward(Layer(groups), query, key, value, None)
    torch.testing.assert_close(ours, theirs)


def test_the_switch_is_taken_back_even_after_an_error() -> None:
    config = LlamaConfig(attn_implementation="sdpa")
    with pytest.raises(RuntimeError), decoding(config):
        assert config._attn_implementation == IN_LINE["sdpa"]
        with decoding(config):
            assert config._attn_implementation == IN_LINE["sdpa"]
        raise RuntimeError
    assert config._attn_implementation == "sdpa"
    for kept in ("eager", IN_LINE[SDPA_FLOAT64]):
        config._attn_implementation = kept
        with decoding(config):
            assert config._attn_implementation == kept
