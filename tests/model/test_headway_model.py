"""A checkpoint stays an ordinary checkpoint, and heads never get lost or attached to what they do not fit."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from headway import HeadwayModel
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.heads import CONFIG_FILE, TENSORS_FILE
from tests.tiny import FAMILIES, tiny_trunk

IDS = torch.tensor([[5, 9, 23, 4, 17, 8]])


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_saved_heads_and_trunk_come_back_bit_for_bit(tmp_path, family, options):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3, **options)
    for parameter in model.heads.parameters():
        parameter.data.normal_()
    model.save_pretrained(tmp_path / "m")
    loaded = HeadwayModel.from_pretrained(tmp_path / "m")
    assert loaded.heads.config == model.heads.config
    assert options.items() <= loaded.heads.config.options.items()
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for a, b in zip(model(IDS).hidden_states, loaded(IDS).hidden_states, strict=True):
        torch.testing.assert_close(a, b)


def test_the_folder_loads_as_the_plain_model(tmp_path):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    model.save_pretrained(tmp_path / "m")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(plain(IDS).logits, model.trunk(IDS).logits)


def test_heads_saved_alone_attach_to_another_trunk_of_the_same_kind(tmp_path):
    model = HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=2)
    model.heads.save_pretrained(tmp_path / "heads")
    other = HeadwayModel.from_trunk(tiny_trunk(seed=1, num_hidden_layers=5), count=0)
    other.attach(tmp_path / "heads")
    assert other.count == 2
    assert torch.equal(other.heads.layers[1].eh_proj.weight, model.heads.layers[1].eh_proj.weight)
    assert other.heads.layers[1].mtp_block.self_attn.layer_idx == 6
    other.heads.save_pretrained(tmp_path / "again")
    assert "model.layers.5.eh_proj.weight" in load_file(tmp_path / "again" / TENSORS_FILE)


@pytest.mark.parametrize("other", [{"architecture": "gpt2"}, {"hidden_size": 64}])
def test_heads_that_do_not_fit_are_refused_naming_both_sides(tmp_path, other):
    HeadwayModel.from_trunk(tiny_trunk(), count=1).heads.save_pretrained(tmp_path / "heads")
    model = HeadwayModel.from_trunk(tiny_trunk(**other), count=0)
    with pytest.raises(CheckpointError, match=r"llama trunk of width 32.*(gpt2|width 64)"):
        model.attach(tmp_path / "heads")


def test_a_missing_tensor_is_named(tmp_path):
    HeadwayModel.from_trunk(tiny_trunk(), count=1).save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / CONFIG_FILE).read_text())
    (tmp_path / "m" / CONFIG_FILE).write_text(json.dumps({**config, "count": 2}))
    with pytest.raises(CheckpointError, match=r"no tensor layers\.1\."):
        HeadwayModel.from_pretrained(tmp_path / "m")


def test_fewer_heads_can_be_loaded_but_not_more(tmp_path):
    HeadwayModel.from_trunk(tiny_trunk(), count=3).save_pretrained(tmp_path / "m")
    assert HeadwayModel.from_pretrained(tmp_path / "m", count=1).count == 1
    assert HeadwayModel.from_pretrained(tmp_path / "m", count=0).heads is None
    with pytest.raises(CheckpointError, match="3 heads, fewer than the 4"):
        HeadwayModel.from_pretrained(tmp_path / "m", count=4)


def test_saving_without_heads_leaves_no_old_heads_behind(tmp_path):
    trunk = tiny_trunk()
    HeadwayModel.from_trunk(trunk, count=1).save_pretrained(tmp_path / "m")
    HeadwayModel.from_trunk(trunk, count=0).save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m" / TENSORS_FILE).exists()


def test_sequential_heads_are_on_disk_as_transformers_names_them(tmp_path):
    HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=2).save_pretrained(tmp_path / "m")
    names = set(load_file(tmp_path / "m" / TENSORS_FILE))
    expected = {"enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight", "self_attn.q_proj.weight"}
    assert {f"model.layers.{n}.{name}" for n in (3, 4) for name in expected} <= names


def test_unknown_family_option_and_count_are_refused():
    for arguments, message in [
        ({"family": "medusae"}, "no head family"),
        ({"lineal": True}, "no option"),
        ({"count": -1}, "negative"),
    ]:
        with pytest.raises(ConfigError, match=message):
            HeadwayModel.from_trunk(tiny_trunk(), **arguments)


def test_a_folder_that_is_no_model_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        HeadwayModel.from_trunk(str(tmp_path))


def test_a_wrapped_model_with_an_adapter_is_refused_with_the_way_out():
    wrapped = get_peft_model(tiny_trunk(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(CheckpointError, match="merge_and_unload"):
        HeadwayModel.from_trunk(wrapped)


def test_the_trunk_is_left_as_it_was():
    trunk = tiny_trunk()
    before = set(vars(trunk)), len(trunk.model.layers[-1]._forward_pre_hooks)
    model = HeadwayModel.from_trunk(trunk, count=2)
    model(IDS)
    assert (set(vars(trunk)), len(trunk.model.layers[-1]._forward_pre_hooks)) == before


@pytest.mark.parametrize("family", ["parallel", "sequential"])
def test_layers_that_cannot_be_heads_are_refused_when_attached(family):
    with pytest.raises(UnsupportedModelError, match="BloomForCausalLM cannot be run as a head"):
        HeadwayModel.from_trunk(tiny_trunk("bloom"), family=family)
