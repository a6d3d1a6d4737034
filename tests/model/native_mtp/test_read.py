"""Native MTP layers run as heads exactly as transformers runs them; incomplete or foreign layers are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from headway import HeadwayModel
from headway.errors import CheckpointError
from headway.training import finetune
from headway.training.configs import FinetuneConfig
from tests.native_mtp import IDS, NATIVE_MTP, native_states, save_native_mtp, tensors_of
from tests.tiny import tiny_trunk

QUICK = {"max_length": 32, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2, "max_steps": 2, "limit": 12}


@torch.no_grad()
@pytest.mark.parametrize("architecture", NATIVE_MTP)
def test_heads_have_the_hidden_states_of_transformers_mtp_layers(tmp_path, architecture):
    native = save_native_mtp(tmp_path, architecture)
    model = HeadwayModel.from_pretrained(tmp_path).eval()
    assert model.heads.family == "sequential" and model.count == native.num_mtp_layers
    ours = model.heads.layers.state_dict()
    for name, tensor in native.layers.state_dict().items():
        if "eh_proj" not in name or architecture != "mimo":  # MiMo's hidden state comes first on disk
            assert torch.equal(ours[name], tensor), name
    states = model(IDS).hidden_states
    for k, theirs in enumerate(native_states(native, states[0], IDS, model.count)):
        torch.testing.assert_close(states[k + 1][:, : theirs.shape[1]], theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["deepseek_v3", "glm4_moe", "mimo"])
def test_decoding_with_native_mtp_layers_gives_the_trunks_own_output(native_mtp, architecture):
    model = HeadwayModel.from_pretrained(native_mtp(architecture)).eval()
    out = model.generate(IDS, max_new_tokens=16, adaptive=False)
    for row, found in zip(IDS, out.sequences, strict=True):
        plain = model.trunk.generate(row[None], max_new_tokens=16, do_sample=False)[0]
        assert found[: len(plain)].tolist() == plain.tolist()
    assert out.stats.num_draft_tokens > 0


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["qwen3_next", "qwen3_5_text"])
def test_a_trunk_with_linear_attention_is_decoded_autoregressively_with_a_warning(native_mtp, architecture):
    model = HeadwayModel.from_pretrained(native_mtp(architecture)).eval()
    with pytest.warns(UserWarning, match="decodes autoregressively"):
        out = model.generate(IDS[:1], max_new_tokens=12)
    assert out.sequences.tolist() == model.trunk.generate(IDS[:1], max_new_tokens=12, do_sample=False).tolist()


def test_documents_of_a_recurrent_trunk_are_not_packed(tmp_path, native_mtp, data):
    config = FinetuneConfig(model=str(native_mtp("qwen3_next")), data=data, output_dir=tmp_path / "out", **QUICK)
    assert config.pack
    with pytest.warns(UserWarning, match="a row of its own"):
        finetune(config)


def damaged(source: Path, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """A copy of `source` with changed tensors."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def cut(tensors):
    tensors["model.layers.3.eh_proj.weight"] = tensors["model.layers.3.eh_proj.weight"][:, :-1].clone()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("model.layers.3.enorm.weight"), "enorm.weight is missing"),
        (lambda t: t.pop("model.layers.3.mlp.experts.1.down_proj.weight"), "experts.down_proj is of another shape"),
        (cut, "eh_proj.weight is of another shape"),
        (lambda t: t.update({"model.layers.4.enorm.weight": torch.zeros(32)}), "2 MTP layers, but its config declares 1"),
    ],
)
def test_incomplete_layers_are_refused(tmp_path, native_mtp, change, reason):
    folder = damaged(native_mtp("glm4_moe"), tmp_path / "damaged", change)
    with pytest.raises(CheckpointError, match=reason):
        HeadwayModel.from_pretrained(folder)


def test_layers_of_another_kind_than_the_trunks_last_give_a_plain_model(tmp_path):
    save_native_mtp(tmp_path / "a", "qwen3_next")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    kinds = config["layer_types"]
    assert kinds[-1] == "full_attention"
    trunk = tiny_trunk("qwen3_next", **{**NATIVE_MTP["qwen3_next"][0], "vocab_size": 64, "layer_types": kinds[::-1]})
    layers = {name: tensor for name, tensor in tensors_of(tmp_path / "a").items() if name.startswith("mtp.")}
    trunk.save_pretrained(tmp_path / "b", state_dict={**trunk.state_dict(), **layers})
    with pytest.warns(UserWarning, match="of another kind than the trunk's last layer"):
        model = HeadwayModel.from_pretrained(tmp_path / "b")
    assert model.heads is None
    model.save_pretrained(tmp_path / "c")
    assert all(torch.equal(tensors_of(tmp_path / "c")[name], tensor) for name, tensor in layers.items())


@pytest.mark.parametrize("name", ["model.layers.3.q.weight", "model.layers.3.self_attn.indexer.weight"])
def test_unknown_tensors_give_a_plain_model_and_are_saved_unchanged(tmp_path, native_mtp, name):
    folder = damaged(native_mtp("glm4_moe"), tmp_path / "a", lambda tensors: tensors.update({name: torch.ones(2)}))
    with pytest.warns(UserWarning, match="used without them"):
        model = HeadwayModel.from_pretrained(folder)
    assert model.heads is None
    model.save_pretrained(tmp_path / "b")
    before, after = tensors_of(folder), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
