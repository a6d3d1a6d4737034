"""EAGLE-3 drafters, as published and in speculators' format: readers of the layouts draft as the heads do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.interop import export, import_
from tests.interop.checks import assert_same, shaken
from tests.interop.readers import eagle3_drafts
from tests.tiny import tiny_trunk

TEXT = torch.tensor([5, 9, 23, 4, 40, 8, 17, 31, 12, 3])
KINDS = [
    {},
    {"norm_before_residual": True},
    {"layers_read": [0, 2]},
    {"layer": {"intermediate_size": 40, "num_attention_heads": 8}},
]
FORMATS = {"eagle3": ("midlayer.", None), "speculators": ("layers.0.", "transformer_layer_config")}
ANCHOR, STEPS = 4, 3
IDS = "eagle_aux_hidden_state_layer_ids"

pytestmark = pytest.mark.filterwarnings("ignore:.*is a folder. vLLM needs a hub id")


def reduced(architecture: str = "llama", **options: object):
    model = shaken("eagle3", architecture, **options)
    model.heads.set_draft_vocab(torch.tensor([7, 3, 50, 12, 60, 0]))
    return model


def published(tmp_path, model, format_="eagle3"):
    model.trunk.save_pretrained(tmp_path / "trunk")
    export(model, format_, tmp_path / "out", {"verifier": "a/b"} if format_ == "speculators" else {})
    return tmp_path / "out", str(tmp_path / "trunk")


def changed(out, tensors=None, **config):
    if tensors is not None:
        save_file(tensors, out / "model.safetensors")
    said = json.loads((out / "config.json").read_text())
    kept = {name: value for name, value in {**said, **config}.items() if value is not KeyError}
    (out / "config.json").write_text(json.dumps(kept))


@torch.no_grad()
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("make", [lambda *a, **k: shaken("eagle3", *a, **k), reduced], ids=["whole", "reduced"])
def test_a_reader_of_the_layout_drafts_as_headway_does(tmp_path, options, make, format_):
    model = make("qwen3", **options)
    out, _ = published(tmp_path, model, format_)
    states = model(TEXT[None]).hidden_states[1:]
    ours = [u.logits(s)[0, ANCHOR] for u, s in zip(model.unembeddings[1:], states, strict=True)]
    theirs = eagle3_drafts(out, model.trunk, TEXT, ANCHOR, STEPS, *FORMATS[format_])
    torch.testing.assert_close(theirs, torch.stack(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("options", [*KINDS, {"layer": {"attention_bias": True}}, {"layer": {"num_key_value_heads": 2}}])
@pytest.mark.parametrize("make", [lambda *a, **k: shaken("eagle3", *a, **k), reduced], ids=["whole", "reduced"])
def test_import_of_an_export_is_the_same_bit_for_bit(tmp_path, options, make, format_):
    model = make("llama", **options)
    model.heads.config.training.update(stage="heads", steps=7)
    model.trunk.save_pretrained(tmp_path / "trunk")
    account = export(model, format_, tmp_path / "out", {"verifier": "a/b"} if format_ == "speculators" else {})
    assert len(account.outcomes) == len(model.heads.checkpoint_tensors()) + (format_ == "speculators") and not account.left_out
    assert_same(import_(tmp_path / "out", format_, str(tmp_path / "trunk")), model)


def test_the_files_say_what_readers_take_other_defaults_for(tmp_path):
    for format_, names in (("eagle3", "midlayer."), ("speculators", "layers.0.")):
        out, _ = published(tmp_path / format_, reduced(), format_)
        said, tensors = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
        assert said["norm_before_residual"] is False and said["draft_vocab_size"] == 6 and said[IDS] == [0, 1, 2]
        assert tensors["d2t"].tolist() == [0, 3 - 1, 7 - 2, 12 - 3, 50 - 4, 60 - 5] and tensors["t2d"].dtype == torch.bool
        assert tensors["t2d"].nonzero().flatten().tolist() == [0, 3, 7, 12, 50, 60]
        assert tensors[f"{names}self_attn.q_proj.weight"].shape == (32, 64)


def test_rows_in_any_order_are_sorted_with_their_tokens(tmp_path):
    out, trunk = published(tmp_path, reduced())
    tensors = load_file(out / "model.safetensors")
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    tokens = torch.tensor([0, 3, 7, 12, 50, 60])[order]
    changed(out, {**tensors, "lm_head.weight": tensors["lm_head.weight"][order], "d2t": tokens - torch.arange(6)})
    heads = import_(out, "eagle3", trunk).heads
    assert heads.draft_tokens.tolist() == [0, 3, 7, 12, 50, 60]
    assert torch.equal(heads.lm_head["weight"], tensors["lm_head.weight"])


def test_a_drafter_that_knows_all_tokens_by_offsets_of_nothing_has_no_reduced_vocabulary(tmp_path):
    out, trunk = published(tmp_path, shaken("eagle3"))
    more = {"d2t": torch.zeros(61, dtype=torch.int64), "t2d": torch.ones(61, dtype=torch.bool)}
    changed(out, {**load_file(out / "model.safetensors"), **more})
    assert import_(out, "eagle3", trunk).heads.draft_tokens is None


def test_published_configs_need_not_say_what_is_usual(tmp_path):
    model = shaken("eagle3", tiny_trunk(num_hidden_layers=8), layers_read=[2, 4, 5])
    out, trunk = published(tmp_path, model)
    changed(out, headway_heads=KeyError, eagle_config=KeyError, norm_before_residual=KeyError, **{IDS: KeyError})
    back = import_(out, "eagle3", trunk)
    assert back.heads.layers_read == [2, 4, 5] and back.count == 5
    changed(out, eagle_config={IDS: [1, 3, 5]})
    assert import_(out, "eagle3", trunk).heads.layers_read == [1, 3, 5]


def test_queries_may_have_biases_where_outputs_have_none(tmp_path):
    out, trunk = published(tmp_path, shaken("eagle3", layer={"attention_bias": True}))
    tensors = load_file(out / "model.safetensors")
    changed(out, {name: tensor for name, tensor in tensors.items() if not name.endswith("o_proj.bias")}, attention_bias=False)
    attention = import_(out, "eagle3", trunk).heads.midlayer.self_attn
    assert torch.equal(attention.k_proj.bias, tensors["midlayer.self_attn.k_proj.bias"]) and not attention.o_proj.bias.any()


def test_a_speculator_says_how_many_tokens_it_proposes_and_for_whom(tmp_path):
    model = shaken("eagle3", count=4)
    model.trunk.save_pretrained(tmp_path / "trunk")
    model.trunk.config.name_or_path = str(tmp_path / "trunk")
    with pytest.warns(UserWarning, match="vLLM needs a hub id"):
        export(model, "speculators", tmp_path / "out")
    changed(tmp_path / "out", headway_heads=KeyError)
    assert import_(tmp_path / "out", "speculators").count == 4
    changed(tmp_path / "out", norm_before_residual=KeyError)
    with pytest.warns(UserWarning, match="speculators and Headway assume false"):
        import_(tmp_path / "out", "speculators")


def test_what_has_no_place_there_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="read state 3"):
        export(shaken("eagle3", layers_read=[0, 3]), "eagle3", tmp_path / "out")
    with pytest.raises(UnsupportedModelError, match="has eagle heads"):
        export(shaken("eagle"), "speculators", tmp_path / "out")
    with pytest.raises(ConfigError, match="verifier: HUB_ID"):
        export(shaken("eagle3"), "speculators", tmp_path / "out")
    with pytest.raises(ConfigError, match="no option verifyer; it has: verifier"):
        export(shaken("eagle3"), "speculators", tmp_path / "out", {"verifyer": "a/b"})


def test_what_is_no_eagle3_checkpoint_is_named(tmp_path):
    out, trunk = published(tmp_path, reduced())
    tensors, said = load_file(out / "model.safetensors"), (out / "config.json").read_text()

    def refuses(kind, message, put=None, **config):
        changed(out, put or tensors, **config)
        with pytest.raises(kind, match=message):
            import_(out, "eagle3", trunk)
        (out / "config.json").write_text(said)

    for name in ("norm_before_fc", "fc_norm", "norm_output"):
        refuses(UnsupportedModelError, f"{name} is a norm of EAGLE-3.1", **{name: True})
    refuses(CheckpointError, r"layer_ids is \[0, 1, 9\], and the trunk has 3 layers", **{IDS: [0, 1, 9]})
    refuses(CheckpointError, "no usual choice for a trunk of 3 layers", eagle_config=KeyError, **{IDS: KeyError})
    refuses(CheckpointError, "fc.weight is 32 x 96 there, and 32 x 64", **{IDS: [0, 1]})
    tokens = torch.tensor([0, 3, 7, 12, 50, 60])
    refuses(CheckpointError, "tokens 0 to 65, and the trunk has 61", tensors | {"d2t": tokens})  # tokens in place of offsets
    refuses(CheckpointError, "names a token twice", tensors | {"d2t": torch.tensor([0, -1, 0, 0, 0, 0])})
    refuses(CheckpointError, "t2d name different tokens", tensors | {"d2t": torch.zeros(6, dtype=torch.int64)})
    refuses(CheckpointError, "d2t lists 5 tokens", tensors | {"d2t": tokens[:5]})
    refuses(CheckpointError, "d2t is missing", {n: t for n, t in tensors.items() if n != "d2t"})
    refuses(CheckpointError, "norm.weight is missing", {n: t for n, t in tensors.items() if n != "norm.weight"})
    refuses(CheckpointError, "layers.1.mlp.up_proj.weight has no place", tensors | {"layers.1.mlp.up_proj.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match="holds EAGLE-3, native: import it --from eagle3"):
        import_(out, "speculators", trunk)
    save_file({"fc.weight": tensors["fc.weight"]}, out / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no speculators_model_type"):
        import_(out, "speculators", trunk)
    changed(out, tensors, speculators_model_type="dflash")
    with pytest.raises(UnsupportedModelError, match="type dflash"):
        import_(out, "speculators", trunk)
    changed(out, tensors, speculators_model_type="eagle3")
    with pytest.raises(CheckpointError, match="transformer_layer_config is missing"):
        import_(out, "speculators", trunk)
