"""Any folder has its layout named, with what serves it and what to look out for."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from headway.errors import CheckpointError
from headway.interop import FORMATS, export, recognise
from tests.interop.checks import shaken
from tests.interop.test_medusa import as_published
from tests.native_mtp import save_native_mtp
from tests.tiny import tiny_trunk

pytestmark = pytest.mark.filterwarnings("ignore:.*is a folder. vLLM needs a hub id", "ignore:vLLM passes over")


def folder(path: Path, names: list[str], **config: object) -> Path:
    """Tensors of these names, of one number each, and settings."""
    path.mkdir(exist_ok=True)
    save_file({name: torch.zeros(1) for name in names}, path / "model.safetensors")
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return path


EXPORTS = {
    "medusa": ("medusa", {}, "Medusa, vLLM's naming", "vLLM up to 0.32"),
    "eagle": ("eagle", {}, "EAGLE-1", "SGLang 0.5.23 (EAGLE)"),
    "eagle3": ("eagle3", {}, "EAGLE-3, native", "SGLang 0.5.23 (EAGLE3)"),
    "speculators": ("eagle3", {"verifier": "a/b"}, "speculators, eagle3", "speculators 0.9"),
    "transformers": ("sequential", {}, "deepseek (", "use_mtp=True"),
}


@pytest.mark.parametrize("format_", FORMATS)
def test_every_export_is_recognised_as_what_it_is_with_nothing_to_look_out_for(tmp_path, format_):
    family, options, layout, engine = EXPORTS[format_]
    model = shaken(family, count=2)
    export(model, format_, tmp_path / "out", options)
    found = recognise(tmp_path / "out")
    assert (found["format"], found["family"], found["notes"]) == (format_, family, [])
    assert found["layout"].startswith(layout) and engine in found["engines"]
    heads = sum(tensor.numel() for tensor in model.heads.checkpoint_tensors().values())
    copies = model.trunk.get_input_embeddings().weight.numel() if format_ == "speculators" else 0
    assert found["parameters"] == heads + copies and found["dtype"] == "F32"


def test_published_medusa_heads_are_told_apart_and_counted_by_their_tensors(tmp_path):
    model = shaken("medusa")
    as_published(model, tmp_path / "a")
    found = recognise(tmp_path / "a")
    assert found["layout"] == "Medusa, FasterDecoding's naming" and found["count"] == 3
    assert any("declares 2 heads" in note for note in found["notes"]) and any("biases" in note for note in found["notes"])
    model.trunk.save_pretrained(tmp_path / "whole")
    path = tmp_path / "whole" / "model.safetensors"
    heads = as_published(model, tmp_path / "b", "medusa_heads.")
    save_file(load_file(path) | heads, path, metadata={"format": "pt"})
    found = recognise(tmp_path / "whole")
    assert "ModelOpt" in found["layout"] and found["format"] == "medusa" and found["engines"].startswith("none")
    assert {tensor["name"] for tensor in found["tensors"]} == set(heads)


@pytest.mark.parametrize(
    ("architecture", "layout", "engine"),
    [("glm4_moe", "deepseek", "use_mtp"), ("qwen3_next", "qwen3_next", "Qwen3-Next"), ("mimo", "mimo", "one token a step")],
)
def test_layers_that_a_model_ships_with_are_named_by_kind(tmp_path, architecture, layout, engine):
    save_native_mtp(tmp_path, architecture)
    found = recognise(tmp_path)
    assert found["layout"].startswith(layout) and engine in found["engines"] and found["format"] == "transformers"
    assert found["notes"] == [] and found["parameters"] > 0


@pytest.mark.parametrize("kind", ["peagle", "dflash", "dflash2", "dspark", "mtp", "xpress"])
def test_speculators_of_other_types_are_named_though_headway_reads_none(tmp_path, kind):
    found = recognise(folder(tmp_path, ["layers.0.w"], speculators_model_type=kind))
    assert found["layout"] == f"speculators, {kind}" and "format" not in found
    assert ("no engine as it is" in found["engines"]) == (kind in ("mtp", "xpress"))


def test_traps_of_eagles_configs_are_noted(tmp_path):
    layer = "midlayer.self_attn.q_proj.weight"
    names = ["fc.weight", layer, "midlayer.hidden_norm.weight", "lm_head.weight"]
    said = " | ".join(recognise(folder(tmp_path, names, draft_vocab_size=7, fc_norm=True))["notes"])
    for note in (
        "fc_norm belongs to EAGLE-3.1",
        "norm_before_residual is missing",
        "2, n/2 and n - 3",
        "lm_head is 1",
        "SGLang needs",
    ):
        assert note in said
    names = ["fc.weight", "fc.bias", "layers.0.self_attn.q_proj.weight", "embedding_layernorm.weight"]
    said = " | ".join(recognise(folder(tmp_path, names))["notes"])
    assert "bias of fc" in said and "HASS" in said
    export(shaken("eagle3"), "speculators", tmp_path / "s", {"verifier": str(tmp_path)})
    assert "needs the hub id" in recognise(tmp_path / "s")["notes"][0]


def test_a_model_that_lost_its_heads_is_told(tmp_path):
    tiny_trunk().save_pretrained(tmp_path)
    found = recognise(tmp_path)
    assert found["layout"] == "a plain model without heads" and found["notes"] == [] and found["architecture"] == "llama"
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "num_mtp_layers": 2}))
    assert "num_mtp_layers: 2, and the tensors are missing" in recognise(tmp_path)["notes"][0]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "opt", "phi"])
def test_plain_models_of_any_naming_are_plain(tmp_path, architecture):
    tiny_trunk(architecture).save_pretrained(tmp_path)
    assert recognise(tmp_path)["layout"] == "a plain model without heads"


def test_what_it_does_not_know_it_describes(tmp_path):
    found = recognise(folder(tmp_path, ["hydra.0.w", "hydra.1.w"], model_type="hydra"))
    assert found["layout"] == "unknown" and found["notes"] == [
        "config.json declares model_type hydra",
        "there are 2 tensors such as hydra.0.w, hydra.1.w",
    ]
    (tmp_path / "model.safetensors").unlink()
    assert recognise(tmp_path)["notes"][1] == "there are no tensors"


def test_damage_is_named(tmp_path):
    folder(tmp_path, ["a"], model_type="llama")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        recognise(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "model.safetensors").write_text("nothing")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        recognise(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"not whole: gone\.safetensors is missing"):
        recognise(tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        recognise(tmp_path / "nowhere")
