"""EAGLE-1 drafters as published: a reader of the documented layout drafts as the heads do, and nothing is lost on the way."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from headway import HeadwayModel
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.interop import export, import_
from tests.interop.checks import assert_same, shaken
from tests.interop.readers import eagle_drafts
from tests.tiny import tiny_trunk

TEXT = torch.tensor([5, 9, 23, 4, 40, 8, 17, 31, 12, 3])
KINDS = [{}, {"bias": True}, {"noise": 0.2, "trained_steps": 1}, {"layer": {"intermediate_size": 40, "num_attention_heads": 8}}]
ANCHOR, STEPS = 4, 3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:vLLM passes over")
@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "granite"])
def test_a_reader_of_the_layout_drafts_as_headway_does(tmp_path, architecture, options):
    model = shaken("eagle", architecture, **options)
    export(model, "eagle", tmp_path / "out")
    states = model(TEXT[None]).hidden_states[1:]
    ours = [u.logits(s)[0, ANCHOR] for u, s in zip(model.unembeddings[1:], states, strict=True)]
    theirs = eagle_drafts(tmp_path / "out", model.trunk, TEXT, ANCHOR, STEPS)
    torch.testing.assert_close(theirs, torch.stack(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:vLLM passes over")
@pytest.mark.parametrize("options", [*KINDS, {"layer": {"attention_bias": True}}, {"layer": {"num_key_value_heads": 2}}])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_import_of_an_export_is_the_same_bit_for_bit(tmp_path, architecture, options):
    model = shaken("eagle", architecture, **options)
    model.heads.config.training.update(stage="heads", steps=7)
    model.trunk.save_pretrained(tmp_path / "trunk")
    account = export(model, "eagle", tmp_path / "out")
    assert len(account.outcomes) == len(model.heads.checkpoint_tensors()) and not account.left_out
    assert_same(import_(tmp_path / "out", "eagle", str(tmp_path / "trunk")), model)


def test_a_published_drafter_brings_its_own_sizes_and_copies_of_the_trunks_tensors(tmp_path):
    model = shaken("eagle", layer={"intermediate_size": 40, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    export(model, "eagle", tmp_path / "out")
    model.trunk.save_pretrained(tmp_path / "trunk")
    path, config = tmp_path / "out" / "model.safetensors", tmp_path / "out" / "config.json"
    tensors = load_file(path)
    trunk = {"embed_tokens.weight": model.trunk.model.embed_tokens.weight, "lm_head.weight": model.trunk.lm_head.weight}
    save_file({**tensors, **{name: tensor.detach().clone() for name, tensor in trunk.items()}}, path)
    said = json.loads(config.read_text())
    known = {"hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta"}
    config.write_text(json.dumps({name: said[name] for name in known}))
    back = import_(tmp_path / "out", "eagle", str(tmp_path / "trunk"))
    assert torch.equal(back.heads.fc.weight, model.heads.fc.weight)
    assert back.heads.config.options == model.heads.config.options and back.count == 5
    tuned = tiny_trunk(seed=4)
    tuned.save_pretrained(tmp_path / "tuned")
    with pytest.warns(UserWarning, match="_[a-z]+.weight is left out: it is not the trunk's own"):
        import_(tmp_path / "out", "eagle", str(tmp_path / "tuned"))


def test_a_reduced_vocabulary_is_left_out_by_name(tmp_path):
    model = shaken("eagle")
    model.trunk.save_pretrained(tmp_path / "trunk")
    model.heads.set_draft_vocab(torch.arange(10))
    assert list(export(model, "eagle", tmp_path / "out").left_out) == ["heads.draft_tokens"]
    assert "draft_vocabulary" not in import_(tmp_path / "out", "eagle", str(tmp_path / "trunk")).heads.config.options


def test_what_has_no_place_there_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="has eagle3 heads"):
        export(shaken("eagle3"), "eagle", tmp_path / "out")
    with pytest.raises(UnsupportedModelError, match="PhiForCausalLM has a bias"):
        export(HeadwayModel.from_trunk(tiny_trunk("phi"), "eagle", 1), "eagle", tmp_path / "out")
    with pytest.warns(UserWarning, match="vLLM ignores the bias"):
        export(shaken("eagle", bias=True), "eagle", tmp_path / "out")


def test_what_is_no_eagle_checkpoint_is_named(tmp_path):
    out, trunk = tmp_path / "out", str(tmp_path / "trunk")
    model = shaken("eagle")
    model.trunk.save_pretrained(trunk)
    export(model, "eagle", out)
    (out / "config.json").write_text(
        json.dumps({**json.loads((out / "config.json").read_text()), "base_model_name_or_path": "a/b"})
    )
    with pytest.raises(ConfigError, match="--trunk: the heads were made for 'a/b'"):
        import_(out, "eagle")
    tensors, said = load_file(out / "model.safetensors"), json.loads((out / "config.json").read_text())
    for wrong, message in (
        ({"model_type": "qwen3"}, "drafter of qwen3 layers"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"num_hidden_layers": 2}, "drafter of 2 layers"),
    ):
        (out / "config.json").write_text(json.dumps({**said, **wrong}))
        with pytest.raises(UnsupportedModelError, match=message):
            import_(out, "eagle", trunk)
    (out / "config.json").write_text(json.dumps({**said, "num_attention_heads": "many"}))
    with pytest.raises(CheckpointError, match="describes no Llama layer"):
        import_(out, "eagle", trunk)
    (out / "config.json").write_text(json.dumps(said))
    for changed, message in (
        ({name: tensor for name, tensor in tensors.items() if name != "fc.weight"}, "fc.weight is missing"),
        ({**tensors, "embedding_layernorm.weight": torch.ones(32)}, "embedding_layernorm.weight has no place"),
        ({**tensors, "fc.weight": torch.ones(32, 32)}, "32 x 32 there, and 32 x 64"),
    ):
        save_file(changed, out / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            import_(out, "eagle", trunk)
    (out / "model.safetensors").rename(out / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin, a pickle.*'model.safetensors'"):
        import_(out, "eagle", trunk)
