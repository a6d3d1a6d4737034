"""`headway.json` is read by version, and a trunk that cannot carry heads is refused by name, whatever its layers raise."""

import json
from pathlib import Path

import pytest
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from headway import HeadwayModel, embedded_path
from headway.errors import CheckpointError, HeadwayError, UnsupportedModelError
from headway.heads import CONFIG_FILE, FAMILIES, read_config
from headway.trunk import TrunkView
from tests.tiny import COMMON, EXPERTS, LATENT, tiny_trunk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    HeadwayModel.from_trunk(tiny_trunk(), count=1).heads.save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, **settings: object) -> None:
    """Change settings in headway.json; None removes a setting."""
    values = json.loads((folder / CONFIG_FILE).read_text()) | settings
    (folder / CONFIG_FILE).write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize("version", [1, None])
def test_version_one_is_read_and_is_what_a_file_without_a_version_has(folder, version):
    change(folder, version=version)
    assert read_config(folder).version == 1
    assert read_config(embedded_path()).version == 1


def test_a_newer_version_is_refused_by_name_whatever_else_it_holds(folder):
    change(folder, version=2, a_new_setting=1, layers=None)
    with pytest.raises(CheckpointError, match=r"newer Headway: its format is version 2, and this Headway reads up to 1"):
        HeadwayModel.from_trunk(tiny_trunk(), count=0).attach(folder)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"cuont": 1, "famliy": "x"}, "does not know its setting cuont, famliy"),
        ({"layers": None}, "its setting layers is missing"),
        ({"count": "2"}, "its setting count is '2', and must be of type int"),
        ({"count": True}, "its setting count is True"),
        ({"options": []}, r"its setting options is \[\], and must be of type dict"),
        ({"version": "1.0"}, "its setting version is '1.0'"),
    ],
)
def test_a_damaged_config_names_the_setting(folder, settings, reason):
    change(folder, **settings)
    with pytest.raises(CheckpointError, match=reason):
        read_config(folder)


@pytest.mark.parametrize("text", ["[]", "{", "1"])
def test_a_config_that_is_no_object_is_damaged(folder, text):
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_config(folder)


UNUSUAL = {
    "beam": {},
    "deepseek_v4": {**EXPERTS, **LATENT, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
    "bloom": {},
    "xlm": {"emb_dim": 32, "n_layers": 3, "n_heads": 4, "asm": False, "causal": True},
    "mamba": {},
    "falcon_mamba": {},
    "rwkv": {"attention_hidden_size": 32},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "num_layers": 3},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("architecture", UNUSUAL)
def test_heads_on_an_unusual_trunk_are_built_or_refused(architecture, family):
    try:
        config = AutoConfig.for_model(architecture, **{**COMMON, **UNUSUAL[architecture]})
        trunk = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        pytest.skip(f"this transformers builds no {architecture}: {error}")
    try:
        assert HeadwayModel.from_trunk(trunk, family=family, count=1).count == 1
    except HeadwayError as error:
        assert type(trunk).__name__ in str(error) or type(trunk.base_model).__name__ in str(error)


@pytest.mark.parametrize("raised", [KeyError("layer_type"), IndexError(), AssertionError("shape"), NotImplementedError("no mask")])
def test_any_error_of_a_layer_names_the_trunk_and_the_error(raised):
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(nn.Linear(2, 2).weight.detach())

        def forward(self, hidden_states, **kwargs):
            raise raised

    trunk = tiny_trunk()
    trunk.model.layers[-1] = Broken()
    with pytest.raises(UnsupportedModelError, match=rf"LlamaForCausalLM cannot be run as a head: {type(raised).__name__}"):
        HeadwayModel.from_trunk(trunk, count=1)
    with pytest.raises(UnsupportedModelError, match="LlamaForCausalLM cannot have gated-lora heads"):
        HeadwayModel.from_trunk(trunk, family="gated-lora", count=1)
    assert TrunkView(trunk).layers[-1] is trunk.model.layers[-1]
