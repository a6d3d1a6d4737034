"""Names of MTP layers: there and back, and none that belongs to the trunk."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.model.native_mtp.names import INPUT, MTP_TENSOR_NAMES, OUTPUT

INNER = [
    "enorm.weight",
    "hnorm.weight",
    "eh_proj.weight",
    "post_norm.weight",
    "mtp_block.input_layernorm.weight",
    "mtp_block.mlp.experts.3.down_proj.weight",
    "mtp_block.self_attn.q_proj.bias",
]


@given(st.sampled_from(sorted(MTP_TENSOR_NAMES)), st.integers(0, 4), st.sampled_from(INNER), st.integers(1, 99))
def test_a_name_leads_back_to_its_place(layout, k, inner, depth):
    layout = MTP_TENSOR_NAMES[layout]
    k = k if layout.several else 0
    name = layout.to_checkpoint_name(k, inner, depth)
    assert layout.from_checkpoint_name(name, depth) == (k, inner) and layout.holds(name, depth)
    assert re.search(layout.pattern([name]), name)


@pytest.mark.parametrize("layout", MTP_TENSOR_NAMES)
@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight", "model.mtpx.weight"])
def test_what_is_the_trunks_has_no_place_there(layout, name):
    assert MTP_TENSOR_NAMES[layout].from_checkpoint_name(name, 3) is None and not MTP_TENSOR_NAMES[layout].holds(name, 3)


def test_published_names_are_read_as_they_are_meant():
    deepseek, qwen, mimo = (MTP_TENSOR_NAMES[name] for name in ("deepseek", "qwen3_next", "mimo"))
    assert deepseek.from_checkpoint_name("model.layers.61.shared_head.norm.weight", 61) == (0, "post_norm.weight")
    assert deepseek.from_checkpoint_name("model.layers.61.shared_head.head.weight", 61) == (0, OUTPUT)
    assert deepseek.from_checkpoint_name("model.layers.61.embed_tokens.weight", 61) == (0, INPUT)
    assert deepseek.from_checkpoint_name("model.layers.62.self_attn.kv_b_proj.weight", 61) == (
        1,
        "mtp_block.self_attn.kv_b_proj.weight",
    )
    assert qwen.from_checkpoint_name("mtp.fc.weight", 48) == (0, "eh_proj.weight")
    assert qwen.from_checkpoint_name("mtp.layers.0.mlp.gate.weight", 48) == (0, "mtp_block.mlp.gate.weight")
    assert qwen.from_checkpoint_name("mtp.something.weight", 48) is None and qwen.holds("mtp.something.weight", 48)
    assert mimo.from_checkpoint_name("model.mtp_layers.0.input_proj.weight", 36) == (0, "eh_proj.weight")


def test_the_pattern_of_some_layers_is_theirs_alone():
    pattern = MTP_TENSOR_NAMES["deepseek"].pattern(["model.layers.6.enorm.weight", "model.layers.7.enorm.weight"])
    found = [k for k in range(80) if re.search(pattern, f"model.layers.{k}.enorm.weight")]
    assert found == [6, 7]
