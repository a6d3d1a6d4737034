"""Settings of MTP layers are added to a config for a while, and removed for good."""

import pytest

from headway.model.native_mtp.layer_config import declared_counts, remove_mtp_layer_config, with_mtp_layer_config
from tests.native_mtp import HYBRID
from tests.tiny import tiny_trunk


@pytest.mark.parametrize(("architecture", "settings"), [("llama", {}), ("glm4_moe", {}), ("qwen3_5_text", HYBRID)])
def test_a_config_declares_mtp_layers_for_a_while(architecture, settings):
    config = tiny_trunk(architecture, **settings).config
    before = config.to_dict()
    with pytest.raises(KeyError), with_mtp_layer_config(config, 3):
        assert declared_counts(config) == {3}
        if architecture == "qwen3_5_text":
            assert config.mtp_layer_types == ["full_attention"] * 3
        raise KeyError
    assert config.to_dict() == before


@pytest.mark.parametrize("name", ["num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers"])
def test_declared_layers_are_removed_for_good(name):
    config = tiny_trunk("glm4_moe").config
    setattr(config, name, 2)
    config.mtp_layer_types = ["full_attention"] * 2
    assert 2 in declared_counts(config)
    remove_mtp_layer_config(config)
    assert declared_counts(config) == set() and not hasattr(config, "mtp_layer_types")
