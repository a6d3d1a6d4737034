"""Medusa heads in other people's naming: a reader of the documented layout computes from the files what the heads compute."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from headway import HeadwayModel
from headway.cli import main
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.interop import export, import_
from tests.interop.checks import assert_same, shaken
from tests.tiny import tiny_trunk

TEXT = torch.tensor([[5, 9, 23, 4, 40, 8, 17, 31]])
KINDS = [{}, {"layers": 2}, {"layers": 0}, {"tied": True}, {"layers": 2, "tied": True}]


def vllm_reads(folder: Path, hidden: Tensor) -> list[Tensor]:
    """Logits of each head over the whole vocabulary, by the layout's description: blocks, then a matrix, then the map of tokens."""
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    found = []
    for h in range(config["num_heads"]):
        x = hidden
        for layer in range(config["num_hidden_layers"]):
            bias = tensors[f"blocks.{h}.layers.{layer}.bias"] if config["medusa_fc_bias"] else None
            x = x + F.silu(F.linear(x, tensors[f"blocks.{h}.layers.{layer}.weight"], bias))
        logits = x @ tensors["lm_head.weight" if config["original_lm_head"] else f"lm_heads.{h}.weight"].T * config["logit_scale"]
        if config["truncated_vocab_size"] is not None:
            whole = torch.full((*logits.shape[:-1], config["vocab_size"]), -torch.inf)
            whole[..., tensors["token_map"]] = logits
            logits = whole
        found.append(logits)
    return found


@torch.no_grad()
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("options", KINDS)
def test_a_reader_of_the_layout_drafts_as_headway_does(tmp_path, options, reduced):
    for architecture in ("llama", "granite"):  # whose logits are scaled
        model = shaken("medusa", architecture, **options)
        if reduced:
            model.heads.set_draft_vocab(torch.tensor([7, 3, 50, 12, 60, 0]))
        export(model, "medusa", tmp_path / architecture)
        states = model(TEXT).hidden_states
        theirs = vllm_reads(tmp_path / architecture, states[0])
        assert len(theirs) == model.count == 3
        for k, logits in enumerate(theirs):
            torch.testing.assert_close(logits, model.unembeddings[k + 1].logits(states[k + 1]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("options", KINDS)
def test_import_of_an_export_is_the_same_bit_for_bit(tmp_path, options, reduced):
    model = shaken("medusa", **options)
    model.heads.config.training.update(stage="heads", steps=7)
    if reduced:
        model.heads.set_draft_vocab(torch.tensor([7, 3, 50, 12]))
    model.trunk.save_pretrained(tmp_path / "trunk")
    account = export(model, "medusa", tmp_path / "out")
    assert set(account.renamed) >= {f"heads.{name}" for name in model.heads.checkpoint_tensors()} and not account.left_out
    assert_same(import_(tmp_path / "out", "medusa", str(tmp_path / "trunk")), model)


def as_published(model: HeadwayModel, folder: Path, prefix: str = "", **config: object) -> dict[str, Tensor]:
    """The heads as FasterDecoding's training writes them."""
    layers = len(model.heads.blocks[0])
    tensors = {}
    for name, tensor in model.heads.checkpoint_tensors().items():
        parts = name.split(".")
        named = f"{parts[-1]}.{layers}.weight" if parts[0] == "unembedding" else ".".join(parts[1:])
        tensors[prefix + named] = tensor.detach().clone()
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    (folder / "config.json").write_text(json.dumps({"medusa_num_heads": 2, "medusa_num_layers": layers, **config}))
    return tensors


@pytest.mark.parametrize("prefix", ["", "medusa_heads.", "medusa_head."])
def test_fasterdecodings_heads_go_onto_their_trunk_however_many_the_config_counts(tmp_path, prefix):
    model = shaken("medusa", layers=2)
    model.trunk.save_pretrained(tmp_path / "trunk")
    as_published(model, tmp_path / "heads", prefix, base_model_name_or_path=str(tmp_path / "trunk"))
    assert_same(import_(tmp_path / "heads", "medusa"), model, config=False)


def test_layers_that_fasterdecoding_shares_and_saves_once_are_the_same_again(tmp_path):
    model = shaken("medusa", layers=3)
    model.trunk.save_pretrained(tmp_path / "trunk")
    tensors = as_published(model, tmp_path / "heads")
    kept = {name: tensor for name, tensor in tensors.items() if ".linear." not in name or name.split(".")[1] == "0"}
    save_file(kept, tmp_path / "heads" / "medusa_lm_head.safetensors")
    heads = import_(tmp_path / "heads", "medusa", str(tmp_path / "trunk")).heads
    for head, theirs in zip(heads.blocks, model.heads.blocks, strict=True):
        assert len(head) == 3 and all(torch.equal(block.linear.weight, theirs[0].linear.weight) for block in head)


def test_modelopts_heads_come_with_the_trunk_they_stand_in(tmp_path, capsys):
    model = shaken("medusa")
    model.trunk.save_pretrained(tmp_path)
    heads = as_published(model, tmp_path / "apart", "medusa_heads.")
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), **heads}, path, metadata={"format": "pt"})
    assert_same(import_(tmp_path, "medusa"), model, config=False)
    assert "medusa" not in capsys.readouterr().err  # transformers does not complain of them


def test_a_map_of_tokens_in_any_order_and_matrices_of_all_tokens_are_read_as_vllm_does(tmp_path):
    model = shaken("medusa")
    export(model, "medusa", tmp_path / "out")
    model.trunk.save_pretrained(tmp_path / "trunk")
    path, tokens = tmp_path / "out" / "model.safetensors", torch.tensor([40, 2, 17])
    tensors = load_file(path)
    config = json.loads((tmp_path / "out" / "config.json").read_text())

    def read(**changes):
        save_file({**tensors, **changes}, path)
        return import_(tmp_path / "out", "medusa", str(tmp_path / "trunk"))

    with pytest.warns(UserWarning, match="token_map is left out: truncated_vocab_size does not declare"):
        assert read(token_map=tokens).heads.draft_tokens is None
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"truncated_vocab_size": 3}))
    whole = read(token_map=tokens)
    cut = read(token_map=tokens, **{f"lm_heads.{h}.weight": tensors[f"lm_heads.{h}.weight"][tokens].clone() for h in range(3)})
    for heads in (whole.heads, cut.heads):
        assert heads.draft_tokens.tolist() == [2, 17, 40]
        assert torch.equal(heads.unembedding.weights[1], tensors["lm_heads.1.weight"][[2, 17, 40]])
    for wrong, said in (
        ([1, 1, 2], "names a token twice"),
        ([1, 2, 61], "tokens 1 to 61, and the trunk has 61"),
        ([1, 2], "is 3"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read(token_map=torch.tensor(wrong))


def test_heads_that_share_another_matrix_than_the_trunks_keep_it(tmp_path):
    model = shaken("medusa", tied=True)
    export(model, "medusa", tmp_path / "out")
    tiny_trunk(seed=3).save_pretrained(tmp_path / "tuned")
    heads = import_(tmp_path / "out", "medusa", str(tmp_path / "tuned")).heads
    assert all(torch.equal(matrix, model.trunk.lm_head.weight) for matrix in heads.unembedding.weights)
    assert not heads.config.options["tied"]


def test_heads_without_biases_get_none(tmp_path):
    model = shaken("medusa")
    model.trunk.save_pretrained(tmp_path / "trunk")
    tensors = as_published(model, tmp_path / "heads")
    save_file({n: t for n, t in tensors.items() if not n.endswith("bias")}, tmp_path / "heads" / "medusa_lm_head.safetensors")
    heads = import_(tmp_path / "heads", "medusa", str(tmp_path / "trunk")).heads
    assert not any(block.linear.bias.any() for head in heads.blocks for block in head)


def test_a_type_that_is_rounded_is_told(tmp_path):
    model = shaken("medusa")
    export(model, "medusa", tmp_path / "out")
    model.trunk.to(torch.bfloat16).save_pretrained(tmp_path / "trunk")
    with pytest.warns(UserWarning, match="float32 to bfloat16"):
        import_(tmp_path / "out", "medusa", str(tmp_path / "trunk"))


def test_what_has_no_place_there_is_refused(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UnsupportedModelError, match="has parallel heads"):
        export(HeadwayModel.from_trunk(tiny_trunk(), count=1), "medusa", out)
    with pytest.raises(UnsupportedModelError, match="PhiForCausalLM has a bias"):
        export(HeadwayModel.from_trunk(tiny_trunk("phi"), "medusa", 1), "medusa", out)
    with pytest.raises(ConfigError, match="no option layers"):
        export(shaken("medusa"), "medusa", out, {"layers": 1})
    with pytest.raises(ConfigError, match="did you mean 'medusa'"):
        export(shaken("medusa"), "meduza", out)
    shaken("medusa").save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="exists, and its files"):
        export(shaken("medusa"), "medusa", tmp_path / "model")
    assert before == (tmp_path / "model" / "model.safetensors").read_bytes() and not out.exists()


def test_what_is_no_medusa_checkpoint_is_named(tmp_path):
    out, trunk = tmp_path / "out", str(tmp_path / "trunk")
    model = shaken("medusa")
    model.trunk.save_pretrained(trunk)
    export(model, "medusa", out)
    tensors = load_file(out / "model.safetensors")
    with pytest.raises(ConfigError, match="Name the trunk with --trunk"):
        import_(out, "medusa")
    tiny_trunk(hidden_size=16).save_pretrained(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="32 x 32 there, and 16 x 16"):
        import_(out, "medusa", str(tmp_path / "narrow"))
    for wrong, said in (
        ({name: t for name, t in tensors.items() if name != "blocks.1.layers.0.weight"}, "blocks.1.layers.0.weight is missing"),
        ({name: t for name, t in tensors.items() if name != "lm_heads.1.weight"}, "lm_heads.1.weight is missing, of 3 heads"),
        ({**tensors, "blocks.0.gate": torch.ones(1)}, "blocks.0.gate, which Medusa heads do not have"),
        ({"token_map": torch.arange(3)}, "holds no Medusa heads"),
    ):
        save_file(wrong, out / "model.safetensors")
        with pytest.raises(CheckpointError, match=said):
            import_(out, "medusa", trunk)
    (out / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there is no safetensors file in it"):
        import_(out, "medusa", trunk)
    (out / "medusa_lm_head.pt").write_bytes(b"\x80\x02.")
    with pytest.raises(CheckpointError, match=r"a pickle.*weights_only=True.*'medusa_lm_head.safetensors'"):
        import_(out, "medusa", trunk)
    with pytest.raises(CheckpointError, match="no folder"):
        import_(tmp_path / "nowhere", "medusa", trunk)


@pytest.mark.slow
def test_the_command_that_the_refusal_of_a_pickle_gives_converts_it(tmp_path):
    model = shaken("medusa")
    model.trunk.save_pretrained(tmp_path / "trunk")
    tensors = as_published(model, tmp_path / "heads")
    (tmp_path / "heads" / "medusa_lm_head.safetensors").unlink()
    torch.save(tensors, tmp_path / "heads" / "medusa_lm_head.pt")
    with pytest.raises(CheckpointError) as refused:
        import_(tmp_path / "heads", "medusa", str(tmp_path / "trunk"))
    command = shlex.split(str(refused.value).split("runs no code: ")[1])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path / "heads", check=True)
    assert_same(import_(tmp_path / "heads", "medusa", str(tmp_path / "trunk")), model, config=False)


def test_the_verbs_take_heads_there_and_back(tmp_path, capsys):
    model, out, back = (str(tmp_path / name) for name in ("model", "out", "back"))
    shaken("medusa").save_pretrained(model)
    assert main(["export", "--model", model, "--to", "medusa", "--output-dir", out]) == 0
    assert "vLLM up to 0.32" in capsys.readouterr().err
    assert main(["import", out, "--from", "medusa", "--output-dir", back]) == 0  # the export says where its trunk is
    assert (Path(model) / "headway.safetensors").read_bytes() == (Path(back) / "headway.safetensors").read_bytes()
