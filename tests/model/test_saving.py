"""A save leaves no weights of an earlier save, and a folder that is not complete never replaces a good one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from headway import HeadwayModel
from headway.errors import CheckpointError
from headway.heads import CONFIG_FILE, TENSORS_FILE, HeadStack
from tests.native_mtp import save_native_mtp, tensors_of
from tests.tiny import MORE_ARCHITECTURES, tiny_trunk

IDS = torch.tensor([[5, 9, 23, 4, 17, 8]])
STALE = (
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "consolidated.safetensors",
    "consolidated.00.pth",
    "weights-00002-of-00002.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    CONFIG_FILE,
    TENSORS_FILE,
)
OTHER = ("results.json", "tokenizer.json", "optimizer.pt", "reward.safetensors", "notes.bin")


def test_a_save_over_shards_leaves_one_set_of_weights(tmp_path):
    tiny_trunk().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    model = HeadwayModel.from_pretrained(tmp_path)
    with torch.no_grad():
        model.trunk.lm_head.weight.add_(1)
    model.save_pretrained(tmp_path)
    assert [file.name for file in sorted(tmp_path.glob("*.safetensors*"))] == ["model.safetensors"]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, model.trunk(IDS).logits)


def test_a_save_deletes_model_files_of_any_library_and_no_other_file(tmp_path):
    for name in (*STALE, *OTHER):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "layers_0.safetensors", "b": "../b"}}))
    for name in ("layers_0.safetensors", "layers_1.safetensors"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "model.safetensors").write_text("")
    HeadwayModel.from_trunk(tiny_trunk(), count=0).save_pretrained(tmp_path)
    written = {"config.json", "generation_config.json", "model.safetensors"}
    assert {file.name for file in tmp_path.iterdir()} == {*written, *OTHER, "layers_1.safetensors", "checkpoint-2"}
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file()


def test_heads_saved_alone_leave_the_model_beside_them(tmp_path):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=1)
    model.save_pretrained(tmp_path)
    model.heads.save_pretrained(tmp_path)
    assert HeadwayModel.from_pretrained(tmp_path).count == 1


@pytest.mark.parametrize("architecture", sorted(MORE_ARCHITECTURES))
def test_every_architecture_passes_the_check_of_what_was_saved(tmp_path, architecture):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), count=0)
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(IDS).logits, model.trunk(IDS).logits)


def lose(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors")


def reshape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.zeros(3)}, folder / "model.safetensors")


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])


def empty(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lose, r"model\.norm\.weight is missing"),
        (reshape, r"model\.norm\.weight is missing or has another shape"),
        (cut, "cannot be read"),
        (empty, "no model_type"),
    ],
)
def test_an_incomplete_trunk_is_refused_and_the_earlier_save_stays(tmp_path, monkeypatch, damage, reason):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=1)
    model.save_pretrained(tmp_path / "m")
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    save = type(model.trunk).save_pretrained
    monkeypatch.setattr(type(model.trunk), "save_pretrained", lambda *a, **k: (save(*a, **k), damage(a[1])))
    with pytest.raises(CheckpointError, match=rf"cannot be saved in .*m: .*{reason}"):
        model.save_pretrained(tmp_path / "m")
    assert {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_incomplete_heads_are_refused(tmp_path, monkeypatch):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=1)
    write = HeadStack.write_files

    def lose_one(heads: HeadStack, folder: Path) -> None:
        write(heads, folder)
        tensors = load_file(folder / TENSORS_FILE)
        tensors.pop(min(tensors))
        save_file(tensors, folder / TENSORS_FILE)

    monkeypatch.setattr(HeadStack, "write_files", lose_one)
    with pytest.raises(CheckpointError, match=rf"is missing in {TENSORS_FILE}"):
        model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_native_mtp_layers_survive_saves_in_their_own_folder_and_then_elsewhere(tmp_path):
    save_native_mtp(tmp_path / "a", "glm4_moe", max_shard_size="20KB")
    before = tensors_of(tmp_path / "a")
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "a")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 1 and model.provenance is not None
    model.heads = None
    model.save_pretrained(tmp_path / "b")
    after = tensors_of(tmp_path / "b")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
