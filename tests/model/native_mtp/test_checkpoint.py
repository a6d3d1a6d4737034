"""MTP layers in a folder are found by name."""

import json
import shutil

import pytest

from headway import HeadwayModel
from headway.errors import CheckpointError
from tests.tiny import tiny_trunk


def test_a_truncated_file_is_refused(tmp_path, native_mtp):
    shutil.copytree(native_mtp("glm4_moe"), tmp_path / "short")
    file = tmp_path / "short" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        HeadwayModel.from_pretrained(tmp_path / "short")


def test_layers_beyond_a_shortened_config_are_not_taken_for_mtp_layers(tmp_path):
    tiny_trunk().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert HeadwayModel.from_pretrained(tmp_path).heads is None
