"""Exported heads are what transformers decodes with, and come back as they were."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpModel

from headway import HeadwayModel
from headway.cli import main
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.interop import export, import_
from headway.model.native_mtp.layer_config import with_mtp_layer_config
from tests.native_mtp import save_native_mtp, tensors_of
from tests.tiny import tiny_trunk
from tests.training.recipes import save_tokenizer

PROMPT = torch.tensor([[5, 9, 23, 4, 40, 8]])
TRUNKS = {
    "llama": {},
    "qwen3": {},
    "mistral": {},
    "qwen2": {"tie_word_embeddings": True},
    "deepseek_v3": {"first_k_dense_replace": 1},
}


def with_heads(architecture: str, count: int = 2, **options: object) -> HeadwayModel:
    """A model whose heads are none of its trunk's copies."""
    trunk = tiny_trunk(architecture, **TRUNKS.get(architecture, {}))
    model = HeadwayModel.from_trunk(trunk, family="sequential", count=count, **options)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.heads.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def test_a_sliding_window_that_transformers_layers_do_not_keep_to_is_told(tmp_path):
    with pytest.warns(UserWarning, match="window of 7"):
        export(with_heads("mistral"), "transformers", tmp_path)


def assert_same(ours: HeadwayModel, theirs: HeadwayModel) -> None:
    assert ours.heads.config == theirs.heads.config
    one, other = ours.state_dict(), theirs.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype, name


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:transformers' MTP layers")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("architecture", TRUNKS)
def test_transformers_drafts_with_them_and_writes_what_headway_writes(tmp_path, architecture, count, monkeypatch):
    model = with_heads(architecture, count)
    account = export(model, "transformers", tmp_path)
    assert len(account.renamed) >= len(model.heads.state_dict())
    assert not account.left_out or architecture == "qwen2"  # whose unembedding is its embedding
    trunk, report = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True, output_loading_info=True)
    assert not any(report.values())
    calls = []
    forward = MtpModel.forward
    monkeypatch.setattr(MtpModel, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    theirs = trunk.generate(PROMPT, use_mtp=True, max_new_tokens=20, do_sample=False)
    assert calls
    assert theirs.tolist() == model.generate(PROMPT, max_new_tokens=20).sequences.tolist()
    native = MtpModel.from_pretrained(trunk)
    assert all(torch.equal(tensor, model.heads.state_dict()[f"layers.{n}"]) for n, tensor in native.layers.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["deepseek", "qwen3_next", "mimo"])
@pytest.mark.parametrize("options", [{}, {"shared": True}])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "deepseek_v3"])
def test_import_of_an_export_is_the_same_bit_for_bit(tmp_path, architecture, options, layout):
    count = 3 if options or layout != "qwen3_next" else 1
    model = with_heads(architecture, count, **options)
    model.heads.config.training.update(stage="heads", steps=7)
    if layout == "mimo" and architecture != "qwen2":
        with pytest.raises(UnsupportedModelError, match="MiMo is a Qwen2"):
            export(model, "transformers", tmp_path, {"layout": layout})
        return
    export(model, "transformers", tmp_path / "out", {"layout": layout})
    back = import_(tmp_path / "out", "transformers")
    if layout == "mimo":
        assert back.heads.config.architecture == "mimo"
        model.heads.config = replace(model.heads.config, architecture="mimo")
    assert_same(back, model)
    back.save_pretrained(tmp_path / "saved")
    again = HeadwayModel.from_pretrained(tmp_path / "saved")
    assert again.heads.config.options == options and again.native_mtp is None
    assert torch.equal(again.heads.layers[0].eh_proj.weight, model.heads.layers[0].eh_proj.weight)
    assert not [name for name in tensors_of(tmp_path / "saved") if "eh_proj" in name or "mtp" in name]


def test_headway_loads_an_export_as_it_is_and_saves_it_as_it_was(tmp_path):
    model = with_heads("qwen3")
    export(model, "transformers", tmp_path / "a")
    loaded = HeadwayModel.from_pretrained(tmp_path / "a")
    assert all(torch.equal(t, loaded.heads.state_dict()[name]) for name, t in model.heads.state_dict().items())
    loaded.save_pretrained(tmp_path / "b")
    before, after = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    trunk = AutoModelForCausalLM.from_pretrained(tmp_path / "b", trust_remote_code=True)
    out = trunk.generate(PROMPT, use_mtp=True, max_new_tokens=8, do_sample=False)
    assert out.tolist() == loaded.generate(PROMPT, max_new_tokens=8).sequences.tolist()


def test_one_layer_in_the_naming_of_qwen3_next_drafts_in_transformers(tmp_path):
    model = with_heads("llama", count=1)
    export(model, "transformers", tmp_path, {"layout": "qwen3_next"})
    assert "mtp.fc.weight" in tensors_of(tmp_path)
    trunk = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    out = trunk.generate(PROMPT, use_mtp=True, max_new_tokens=8, do_sample=False)
    assert out.tolist() == model.generate(PROMPT, max_new_tokens=8).sequences.tolist()


def test_heads_that_a_model_shipped_with_are_exported_without_its_copies(tmp_path):
    save_native_mtp(tmp_path / "glm", "glm4_moe")
    model = HeadwayModel.from_pretrained(tmp_path / "glm")
    account = export(model, "transformers", tmp_path / "out")
    assert set(account.left_out) == {f"model.layers.3.{name}.weight" for name in ("embed_tokens", "shared_head.head")}
    assert_same(import_(tmp_path / "out", "transformers"), model)
    fresh = HeadwayModel.from_trunk(tmp_path / "glm", "sequential", 2)
    account = export(fresh, "transformers", tmp_path / "fresh")
    assert account.left_out["model.layers.3.eh_proj.weight"] == "the model has other heads now"


def test_a_trunk_that_transformers_cannot_roll_back_is_exported_with_a_warning(tmp_path):
    save_native_mtp(tmp_path / "a", "qwen3_next")
    model = HeadwayModel.from_pretrained(tmp_path / "a")
    with pytest.warns(UserWarning, match="cannot be rolled back"):
        export(model, "transformers", tmp_path / "b", {"layout": "qwen3_next"})
    before, after = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_reduced_vocabulary_is_left_out_by_name(tmp_path):
    model = with_heads("llama")
    model.heads.set_draft_vocab(torch.arange(10))
    account = export(model, "transformers", tmp_path)
    assert list(account.left_out) == ["heads.draft_tokens"]
    assert "draft_vocabulary" not in import_(tmp_path, "transformers").heads.config.options


def test_a_layer_for_all_depths_is_written_for_each(tmp_path):
    account = export(with_heads("llama", 3, shared=True), "transformers", tmp_path)
    assert account.renamed["heads.layers.0.eh_proj.weight"] == tuple(f"model.layers.{k}.eh_proj.weight" for k in (3, 4, 5))
    trunk = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    with with_mtp_layer_config(trunk.config, 3):
        assert MtpModel.from_pretrained(trunk).num_mtp_layers == 3


def test_layers_that_were_trained_apart_since_come_back_apart(tmp_path):
    export(with_heads("llama", 2, shared=True), "transformers", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.4.eh_proj.weight"] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    heads = import_(tmp_path, "transformers").heads
    assert len(heads.layers) == heads.count == 2 and not heads.config.options


def test_heads_go_onto_a_descendant_of_their_trunk(tmp_path):
    model = with_heads("llama")
    export(model, "transformers", tmp_path / "a")
    tuned = tiny_trunk("llama", seed=5)
    tuned.save_pretrained(tmp_path / "tuned")
    back = import_(tmp_path / "a", "transformers", str(tmp_path / "tuned"))
    assert torch.equal(back.trunk.lm_head.weight, tuned.lm_head.weight)
    assert torch.equal(back.heads.layers[1].eh_proj.weight, model.heads.layers[1].eh_proj.weight)
    tiny_trunk("llama", hidden_size=16).save_pretrained(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="of another shape"):
        import_(tmp_path / "a", "transformers", str(tmp_path / "narrow"))


def test_what_has_no_place_there_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="has parallel heads"):
        export(HeadwayModel.from_trunk(tiny_trunk(), count=1), "transformers", tmp_path)
    with pytest.raises(UnsupportedModelError, match="no heads"):
        export(HeadwayModel.from_trunk(tiny_trunk(), count=0), "transformers", tmp_path)
    with pytest.raises(UnsupportedModelError, match="GPTNeoXForCausalLM"):
        export(HeadwayModel.from_trunk(tiny_trunk("gpt_neox"), "sequential", 1), "transformers", tmp_path)
    with pytest.raises(UnsupportedModelError, match="one layer"):
        export(with_heads("llama"), "transformers", tmp_path, {"layout": "qwen3_next"})
    with pytest.raises(ConfigError, match="did you mean 'deepseek'"):
        export(with_heads("llama"), "transformers", tmp_path, {"layout": "deepsek"})
    with pytest.raises(ConfigError, match="layout"):
        export(with_heads("llama"), "transformers", tmp_path, {"depth": 2})
    with pytest.raises(ConfigError, match="did you mean 'transformers'"):
        export(with_heads("llama"), "transformer", tmp_path)
    assert not list(tmp_path.iterdir())
    tiny_trunk().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no MTP layers"):
        import_(tmp_path, "transformers")
    with pytest.raises(CheckpointError, match="no folder"):
        import_(tmp_path / "nowhere", "transformers")


def test_export_and_import_commands_restore_the_heads(tmp_path, capsys):
    with_heads("llama").save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--to", "transformers", "--output-dir", str(tmp_path / "out")]
    assert main(["export", *words, "--options", "{layout: deepseek}"]) == 0
    assert "0 left out" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "out"), "--from", "transformers", "--output-dir", str(tmp_path / "back")]) == 0
    one, other = (json.loads((tmp_path / name / "headway.json").read_text()) for name in ("model", "back"))
    assert one == other
    assert (tmp_path / "model" / "headway.safetensors").read_bytes() == (tmp_path / "back" / "headway.safetensors").read_bytes()
    assert (tmp_path / "back" / "tokenizer.json").is_file()
    assert main(["import", str(tmp_path / "model"), "--from", "nothing", "--output-dir", str(tmp_path / "x")]) == 2
    assert "from must be transformers|medusa|eagle|eagle3|speculators, not 'nothing'" in capsys.readouterr().err
