"""MTP layers that a checkpoint ships with: loaded as transformers has them, trained, and written back with nothing lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DeepseekV3ForCausalLM,
    Glm4MoeForCausalLM,
    Qwen3_5ForConditionalGeneration,
)
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from headway import HeadwayModel
from headway.errors import CheckpointError
from headway.model.native_mtp.layer_config import with_mtp_layer_config
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig, HeadsTrainConfig
from tests.shipping import DEEPSEEK, SHIPPING, ship, tensors_of
from tests.tiny import tiny_trunk
from tests.training.recipes import save_data, save_tokenizer

QUICK = {"max_length": 32, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2, "max_steps": 2, "limit": 12}
IDS = torch.tensor([[5, 9, 23, 4, 17, 8, 31, 7], [3, 3, 40, 2, 11, 60, 22, 9]])


@pytest.fixture(autouse=True)
def published_depths(monkeypatch):
    """transformers skips the layers behind the last of the published sizes: 61 and 92 or 46 layers; here there are 3."""
    for kind in (DeepseekV3ForCausalLM, Glm4MoeForCausalLM):
        monkeypatch.setattr(kind, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.3\.", r"model\.layers\.4\."])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """Folder of each checkpoint, made once."""
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            ship(made[architecture], architecture)
            save_tokenizer(made[architecture])
        return made[architecture]

    return make


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(save_data(tmp_path_factory.mktemp("data") / "train.jsonl"))


def native_states(native: MtpModel, hidden: torch.Tensor, ids: torch.Tensor, count: int) -> list[torch.Tensor]:
    """What transformers' own layers say, each at the positions whose token they can see."""
    cache, states = MtpCache(config=native.config), []
    for k in range(count):
        length = ids.shape[1] - (k + 1)
        positions = torch.arange(k + 1, k + 1 + length).expand(ids.shape[0], -1)
        hidden = native.forward_layer(k, hidden[:, :length], positions, cache, input_ids=ids[:, k + 1 :])
        states.append(hidden)
    return states


@torch.no_grad()
@pytest.mark.parametrize("architecture", SHIPPING)
def test_loaded_heads_are_the_layers_that_transformers_runs(tmp_path, architecture):
    native = ship(tmp_path, architecture)
    model = HeadwayModel.from_pretrained(tmp_path).eval()
    assert model.heads.family == "sequential" and model.count == native.num_mtp_layers
    ours = model.heads.layers.state_dict()
    for name, tensor in native.layers.state_dict().items():
        if "eh_proj" not in name or architecture != "mimo":  # MiMo's hidden state comes first on disk
            assert torch.equal(ours[name], tensor), name
    states = model(IDS).hidden_states
    for k, theirs in enumerate(native_states(native, states[0], IDS, model.count)):
        torch.testing.assert_close(states[k + 1][:, : theirs.shape[1]], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SHIPPING)
def test_fine_tuning_keeps_every_tensor_and_transformers_reads_the_result(tmp_path, shipped, data, architecture):
    folder, out = shipped(architecture), tmp_path / "out"
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
def test_at_a_published_depth_transformers_decodes_with_what_was_saved(tmp_path, monkeypatch):
    monkeypatch.undo()  # GLM-4.5-Air has 46 layers, and transformers knows that what follows is none of the trunk's
    ship(tmp_path / "a", "glm4_moe", depth=46)
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
def test_copies_of_the_embedding_follow_it_through_training(tmp_path, shipped, data, architecture):
    finetune(FinetuneConfig(model=str(shipped(architecture)), data=data, output_dir=tmp_path / "out", **QUICK))
    after = tensors_of(tmp_path / "out")
    assert torch.equal(after["model.layers.3.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert torch.equal(after["model.layers.3.shared_head.head.weight"], after["lm_head.weight"])


def test_an_embedding_of_the_layers_own_stays_as_it_was(tmp_path):
    ship(tmp_path / "a", "glm4_moe")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    tensors["model.layers.3.embed_tokens.weight"] += 1
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    model.trunk.get_input_embeddings().weight.data += 5
    model.save_pretrained(tmp_path / "b")
    name = "model.layers.3.embed_tokens.weight"
    assert torch.equal(tensors_of(tmp_path / "b")[name], tensors[name])


def test_training_the_heads_alone_trains_those_that_were_shipped(tmp_path, shipped, data):
    folder, out = shipped("deepseek_v3"), tmp_path / "out"
    train_heads(HeadsTrainConfig(model=str(folder), data=data, output_dir=out, **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and {name.split(".")[2] for name in changed} == {"3", "4"}


def test_next_token_training_leaves_the_layers_as_they_were(tmp_path, shipped, data):
    folder, out = shipped("deepseek_v3"), tmp_path / "out"
    finetune(FinetuneConfig(model=str(folder), data=data, output_dir=out, objective="next-token", **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    kept = [name for name in before if name.startswith(("model.layers.3.", "model.layers.4."))]
    kept = [name for name in kept if not name.endswith(("embed_tokens.weight", "shared_head.head.weight"))]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


def test_other_heads_on_such_a_trunk_leave_its_layers_in_the_checkpoint(tmp_path, shipped, data):
    folder, out = shipped("glm4_moe"), tmp_path / "out"
    train_heads(HeadsTrainConfig(model=str(folder), data=data, output_dir=out, family="parallel", **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert HeadwayModel.from_pretrained(out).heads.family == "parallel"


def test_fewer_heads_than_layers_leave_the_rest_as_it_was(tmp_path, shipped):
    model = HeadwayModel.from_pretrained(shipped("deepseek_v3"), count=1)
    assert model.count == 1
    for parameter in model.heads.parameters():
        parameter.data += 1
    model.save_pretrained(tmp_path)
    before, after = tensors_of(shipped("deepseek_v3")), tensors_of(tmp_path)
    name = "model.layers.{}.eh_proj.weight"
    assert torch.equal(after[name.format(3)], before[name.format(3)] + 1)
    assert torch.equal(after[name.format(4)], before[name.format(4)])


def test_types_and_shards_are_kept(tmp_path):
    ship(tmp_path / "a", "glm4_moe", torch.bfloat16, max_shard_size="20KB")
    assert (tmp_path / "a" / "model.safetensors.index.json").is_file()
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    assert model.heads.layers[0].eh_proj.weight.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "b")
    before, after = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert after["model.layers.3.mlp.gate.e_score_correction_bias"].dtype == torch.float32


def test_saving_over_heads_of_another_kind_leaves_no_second_copy(tmp_path, shipped):
    HeadwayModel.from_trunk(tiny_trunk("glm4_moe"), count=1).save_pretrained(tmp_path)
    assert (tmp_path / "headway.json").is_file()
    HeadwayModel.from_pretrained(shipped("glm4_moe")).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("headway.*"))
    assert HeadwayModel.from_pretrained(tmp_path).heads.family == "sequential"


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["deepseek_v3", "glm4_moe", "mimo"])
def test_decoding_with_the_shipped_layers_is_the_trunks_own(shipped, architecture):
    model = HeadwayModel.from_pretrained(shipped(architecture)).eval()
    out = model.generate(IDS, max_new_tokens=16, adaptive=False)
    for row, found in zip(IDS, out.sequences, strict=True):
        plain = model.trunk.generate(row[None], max_new_tokens=16, do_sample=False)[0]
        assert found[: len(plain)].tolist() == plain.tolist()
    assert out.stats.num_draft_tokens > 0


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["qwen3_next", "qwen3_5_text"])
def test_a_trunk_with_linear_attention_decodes_plainly_and_says_so(shipped, architecture):
    model = HeadwayModel.from_pretrained(shipped(architecture)).eval()
    with pytest.warns(UserWarning, match="decodes plainly"):
        out = model.generate(IDS[:1], max_new_tokens=12)
    assert out.sequences.tolist() == model.trunk.generate(IDS[:1], max_new_tokens=12, do_sample=False).tolist()


def test_documents_of_a_recurrent_trunk_get_a_row_each(tmp_path, shipped, data):
    config = FinetuneConfig(model=str(shipped("qwen3_next")), data=data, output_dir=tmp_path / "out", **QUICK)
    assert config.pack
    with pytest.warns(UserWarning, match="a row of its own"):
        finetune(config)


def damaged(source: Path, folder: Path, change) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def cut(tensors):
    tensors["model.layers.3.eh_proj.weight"] = tensors["model.layers.3.eh_proj.weight"][:, :-1].clone()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t.pop("model.layers.3.enorm.weight"), "enorm.weight is missing"),
        (lambda t: t.pop("model.layers.3.mlp.experts.1.down_proj.weight"), "experts.down_proj is of another shape"),
        (cut, "eh_proj.weight is of another shape"),
        (lambda t: t.update({"model.layers.4.enorm.weight": torch.zeros(32)}), "2 MTP layers, but its config declares 1"),
    ],
)
def test_layers_that_are_not_whole_are_refused(tmp_path, shipped, change, said):
    folder = damaged(shipped("glm4_moe"), tmp_path / "damaged", change)
    with pytest.raises(CheckpointError, match=said):
        HeadwayModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.layers.3.q.weight", "model.layers.3.self_attn.indexer.weight"])
def test_tensors_that_no_head_has_leave_a_plain_model_and_go_back_as_they_were(tmp_path, shipped, name):
    folder = damaged(shipped("glm4_moe"), tmp_path / "a", lambda tensors: tensors.update({name: torch.ones(2)}))
    with pytest.warns(UserWarning, match="used without them"):
        model = HeadwayModel.from_pretrained(folder)
    assert model.heads is None
    model.save_pretrained(tmp_path / "b")
    before, after = tensors_of(folder), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_trunk_cut_short_in_its_config_is_not_taken_for_one_with_layers_behind_it(tmp_path):
    tiny_trunk().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert HeadwayModel.from_pretrained(tmp_path).heads is None


def test_layers_of_one_checkpoint_on_the_trunk_of_another_lie_beside_it(tmp_path, shipped):
    trunk = tiny_trunk("glm4_moe", seed=3, vocab_size=64)
    trunk.save_pretrained(tmp_path / "plain")
    model = HeadwayModel.from_trunk(tmp_path / "plain", count=0)
    model.attach(shipped("glm4_moe"))
    model.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "headway.json").is_file()
    assert tensors_of(tmp_path / "b").keys() == tensors_of(tmp_path / "plain").keys()
    ours, theirs = model.heads.state_dict(), HeadwayModel.from_pretrained(tmp_path / "b").heads.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_truncated_file_is_refused(tmp_path, shipped):
    shutil.copytree(shipped("glm4_moe"), tmp_path / "short")
    file = tmp_path / "short" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        HeadwayModel.from_pretrained(tmp_path / "short")


def test_layers_of_another_kind_than_the_trunks_last_are_left_where_they_are(tmp_path):
    ship(tmp_path / "a", "qwen3_next")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    kinds = config["layer_types"]
    assert kinds[-1] == "full_attention"
    trunk = tiny_trunk("qwen3_next", **{**SHIPPING["qwen3_next"][0], "vocab_size": 64, "layer_types": kinds[::-1]})
    layers = {name: tensor for name, tensor in tensors_of(tmp_path / "a").items() if name.startswith("mtp.")}
    trunk.save_pretrained(tmp_path / "b", state_dict={**trunk.state_dict(), **layers})
    with pytest.warns(UserWarning, match="of another kind than the trunk's last layer"):
        model = HeadwayModel.from_pretrained(tmp_path / "b")
    assert model.heads is None
    model.save_pretrained(tmp_path / "c")
    assert all(torch.equal(tensors_of(tmp_path / "c")[name], tensor) for name, tensor in layers.items())


def test_the_text_part_of_a_larger_model_is_trained_within_it(tmp_path):
    ship(tmp_path / "text", "qwen3_5_text")
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


def test_a_quantised_model_keeps_its_shipped_heads_in_files_of_their_own(tmp_path, shipped):
    pytest.importorskip("torchao")
    model = HeadwayModel.from_pretrained(shipped("mimo")).eval()
    model.quantize("int8")
    model.save_pretrained(tmp_path)
    assert HeadwayModel.from_pretrained(tmp_path).count == 2 and (tmp_path / "headway.json").is_file()


def test_a_reduced_vocabulary_puts_shipped_heads_beside_the_layers(tmp_path, shipped):
    model = HeadwayModel.from_pretrained(shipped("glm4_moe"))
    model.heads.set_draft_vocab(torch.arange(9))
    model.heads.layers[0].eh_proj.weight.data += 1
    model.save_pretrained(tmp_path)
    before, after = tensors_of(shipped("glm4_moe")), tensors_of(tmp_path)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    again = HeadwayModel.from_pretrained(tmp_path)
    ours, theirs = model.heads.state_dict(), again.heads.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_both_names_of_a_tied_matrix_are_kept_where_both_were_there(tmp_path):
    ship(tmp_path / "a", "mimo")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    tensors = tensors_of(tmp_path / "a")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    HeadwayModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    after = tensors_of(tmp_path / "b")
    assert after.keys() == tensors.keys() and all(torch.equal(tensors[name], after[name]) for name in tensors)


def test_a_lora_reaches_the_trunk_and_leaves_no_trace_of_itself(tmp_path, shipped, data):
    folder, out = shipped("mimo"), tmp_path / "out"
    finetune(FinetuneConfig(model=str(folder), data=data, output_dir=out, lora=True, **QUICK))
    before, after = tensors_of(folder), tensors_of(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.0.self_attn.q_proj.weight" in changed and "model.mtp_layers.1.input_proj.weight" in changed


def test_saving_says_where_layers_came_from_that_are_gone(tmp_path, shipped):
    shutil.copytree(shipped("glm4_moe"), tmp_path / "gone")
    model = HeadwayModel.from_trunk(tmp_path / "gone", count=1)
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="gone"):
        model.save_pretrained(tmp_path / "out")
