"""Native MTP layers are saved among the trunk's tensors under their names, and no tensor of the checkpoint is lost."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3_5ForConditionalGeneration
from transformers.modeling_layers import MtpModel

from headway import HeadwayModel
from headway.errors import CheckpointError
from headway.model.native_mtp.layer_config import with_mtp_layer_config
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig, HeadsTrainConfig
from tests.native_mtp import DEEPSEEK, IDS, NATIVE_MTP, native_states, save_native_mtp, tensors_of
from tests.tiny import tiny_trunk

QUICK = {"max_length": 32, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2, "max_steps": 2, "limit": 12}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NATIVE_MTP)
def test_fine_tuning_keeps_all_tensors_and_transformers_reads_the_result(tmp_path, native_mtp, data, architecture):
    folder, out = native_mtp(architecture), tmp_path / "out"
    finetune(FinetuneConfig(model=str(folder), data=data, output_dir=out, **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    assert {name: (t.shape, t.dtype) for name, t in before.items()} == {name: (t.shape, t.dtype) for name, t in after.items()}
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert all("e_score" in name or "experts" in name for name in unchanged)  # an expert that no token was sent to learns nothing
    assert not (out / "headway.json").exists() and not (out / "headway.safetensors").exists()
    counts = [json.loads((at / "config.json").read_text()).get("num_nextn_predict_layers") for at in (folder, out)]
    assert counts[0] == counts[1]
    again = HeadwayModel.from_pretrained(out).eval()
    again.save_pretrained(tmp_path / "again")
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors_of(tmp_path / "again").items())
    if architecture == "mimo":  # no class of transformers
        return
    trunk, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    with with_mtp_layer_config(trunk.config, again.count):
        native = MtpModel.from_pretrained(trunk).eval()
        with torch.no_grad():
            states = again(IDS).hidden_states
            for k, theirs in enumerate(native_states(native, states[0], IDS, again.count)):
                torch.testing.assert_close(states[k + 1][:, : theirs.shape[1]], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_transformers_drafts_with_saved_layers_at_a_published_depth(tmp_path, monkeypatch):
    monkeypatch.undo()  # GLM-4.5-Air has 46 layers, and transformers knows that what follows is none of the trunk's
    save_native_mtp(tmp_path / "a", "glm4_moe", depth=46)
    HeadwayModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    trunk, report = AutoModelForCausalLM.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(report.values())
    drafted = []
    forward = MtpModel.forward
    monkeypatch.setattr(MtpModel, "forward", lambda *a, **k: drafted.append(1) or forward(*a, **k))
    theirs = trunk.generate(IDS[:1], use_mtp=True, max_new_tokens=8, do_sample=False)
    ours = HeadwayModel.from_pretrained(tmp_path / "b").eval().generate(IDS[:1], max_new_tokens=8)
    assert drafted and theirs.tolist() == ours.sequences.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", DEEPSEEK)
def test_copies_of_the_embedding_are_saved_as_trained(tmp_path, native_mtp, data, architecture):
    finetune(FinetuneConfig(model=str(native_mtp(architecture)), data=data, output_dir=tmp_path / "out", **QUICK))
    after = tensors_of(tmp_path / "out")
    assert torch.equal(after["model.layers.3.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert torch.equal(after["model.layers.3.shared_head.head.weight"], after["lm_head.weight"])


def test_an_untied_copy_of_the_embedding_is_saved_unchanged(tmp_path):
    save_native_mtp(tmp_path / "a", "glm4_moe")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    tensors["model.layers.3.embed_tokens.weight"] += 1
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    model.trunk.get_input_embeddings().weight.data += 5
    model.save_pretrained(tmp_path / "b")
    name = "model.layers.3.embed_tokens.weight"
    assert torch.equal(tensors_of(tmp_path / "b")[name], tensors[name])


def test_training_heads_alone_trains_the_native_mtp_layers(tmp_path, native_mtp, data):
    folder, out = native_mtp("deepseek_v3"), tmp_path / "out"
    train_heads(HeadsTrainConfig(model=str(folder), data=data, output_dir=out, **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and {name.split(".")[2] for name in changed} == {"3", "4"}


def test_next_token_training_leaves_mtp_layers_unchanged(tmp_path, native_mtp, data):
    folder, out = native_mtp("deepseek_v3"), tmp_path / "out"
    finetune(FinetuneConfig(model=str(folder), data=data, output_dir=out, objective="next-token", **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    kept = [name for name in before if name.startswith(("model.layers.3.", "model.layers.4."))]
    kept = [name for name in kept if not name.endswith(("embed_tokens.weight", "shared_head.head.weight"))]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


def test_new_heads_leave_mtp_layers_unchanged(tmp_path, native_mtp, data):
    folder, out = native_mtp("glm4_moe"), tmp_path / "out"
    train_heads(HeadsTrainConfig(model=str(folder), data=data, output_dir=out, family="parallel", **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert HeadwayModel.from_pretrained(out).heads.family == "parallel"


def test_layers_without_a_head_are_saved_unchanged(tmp_path, native_mtp):
    model = HeadwayModel.from_pretrained(native_mtp("deepseek_v3"), count=1)
    assert model.count == 1
    for parameter in model.heads.parameters():
        parameter.data += 1
    model.save_pretrained(tmp_path)
    before, after = tensors_of(native_mtp("deepseek_v3")), tensors_of(tmp_path)
    name = "model.layers.{}.eh_proj.weight"
    assert torch.equal(after[name.format(3)], before[name.format(3)] + 1)
    assert torch.equal(after[name.format(4)], before[name.format(4)])


def test_dtypes_are_kept_from_shards(tmp_path):
    save_native_mtp(tmp_path / "a", "glm4_moe", torch.bfloat16, max_shard_size="20KB")
    assert (tmp_path / "a" / "model.safetensors.index.json").is_file()
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    assert model.heads.layers[0].eh_proj.weight.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "b")
    before, after = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert after["model.layers.3.mlp.gate.e_score_correction_bias"].dtype == torch.float32


def test_saving_over_heads_of_another_family_deletes_the_old_heads(tmp_path, native_mtp):
    HeadwayModel.from_trunk(tiny_trunk("glm4_moe"), count=1).save_pretrained(tmp_path)
    assert (tmp_path / "headway.json").is_file()
    HeadwayModel.from_pretrained(native_mtp("glm4_moe")).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("headway.*"))
    assert HeadwayModel.from_pretrained(tmp_path).heads.family == "sequential"


def test_mtp_layers_of_another_checkpoint_are_saved_in_headway_files(tmp_path, native_mtp):
    trunk = tiny_trunk("glm4_moe", seed=3, vocab_size=64)
    trunk.save_pretrained(tmp_path / "plain")
    model = HeadwayModel.from_trunk(tmp_path / "plain", count=0)
    model.attach(native_mtp("glm4_moe"))
    model.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "headway.json").is_file()
    assert tensors_of(tmp_path / "b").keys() == tensors_of(tmp_path / "plain").keys()
    ours, theirs = model.heads.state_dict(), HeadwayModel.from_pretrained(tmp_path / "b").heads.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_text_part_of_a_larger_model_is_saved_within_the_larger_model(tmp_path):
    save_native_mtp(tmp_path / "text", "qwen3_5_text")
    text = json.loads((tmp_path / "text" / "config.json").read_text())
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4}
    larger = Qwen3_5ForConditionalGeneration(AutoConfig.for_model("qwen3_5", text_config=text, vision_config=vision))
    layers = {name: tensor for name, tensor in tensors_of(tmp_path / "text").items() if name.startswith("mtp.")}
    larger.save_pretrained(tmp_path / "a", state_dict={**larger.state_dict(), **layers})
    (tmp_path / "a" / "preprocessor_config.json").write_text("{}")
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    assert model.count == 1
    model.trunk.lm_head.weight.data += 1
    model.heads.layers[0].eh_proj.weight.data += 1
    model.save_pretrained(tmp_path / "b")
    before, after = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys() and any("visual" in name for name in after)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"lm_head.weight", "mtp.fc.weight"}
    again, report = Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(report.values()) and again.config.vision_config.depth == 1
    assert (tmp_path / "b" / "preprocessor_config.json").is_file()


def test_mtp_layers_of_a_quantised_model_are_saved_in_headway_files(tmp_path, native_mtp):
    pytest.importorskip("torchao")
    model = HeadwayModel.from_pretrained(native_mtp("mimo")).eval()
    model.quantize("int8")
    model.save_pretrained(tmp_path)
    assert HeadwayModel.from_pretrained(tmp_path).count == 2 and (tmp_path / "headway.json").is_file()


def test_heads_with_a_reduced_vocabulary_are_saved_in_headway_files(tmp_path, native_mtp):
    model = HeadwayModel.from_pretrained(native_mtp("glm4_moe"))
    model.heads.set_draft_vocab(torch.arange(9))
    model.heads.layers[0].eh_proj.weight.data += 1
    model.save_pretrained(tmp_path)
    before, after = tensors_of(native_mtp("glm4_moe")), tensors_of(tmp_path)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    again = HeadwayModel.from_pretrained(tmp_path)
    ours, theirs = model.heads.state_dict(), again.heads.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_tied_matrix_is_saved_under_both_names_of_the_checkpoint(tmp_path):
    save_native_mtp(tmp_path / "a", "mimo")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    tensors = tensors_of(tmp_path / "a")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    HeadwayModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    after = tensors_of(tmp_path / "b")
    assert after.keys() == tensors.keys() and all(torch.equal(tensors[name], after[name]) for name in tensors)


def test_lora_is_merged_before_saving(tmp_path, native_mtp, data):
    folder, out = native_mtp("mimo"), tmp_path / "out"
    finetune(FinetuneConfig(model=str(folder), data=data, output_dir=out, lora=True, **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.0.self_attn.q_proj.weight" in changed and "model.mtp_layers.1.input_proj.weight" in changed


def test_saving_names_a_missing_source_folder(tmp_path, native_mtp):
    shutil.copytree(native_mtp("glm4_moe"), tmp_path / "gone")
    model = HeadwayModel.from_trunk(tmp_path / "gone", count=1)
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="gone"):
        model.save_pretrained(tmp_path / "out")
