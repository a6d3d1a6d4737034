"""A quantised model drafts for itself exactly, survives saving, and is refused where it cannot run."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from headway import HeadwayModel
from headway.cli import main
from headway.decoding.exactness import exactness_issue
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.model import load_tokenizer
from headway.training.configs import HeadsTrainConfig
from headway.training.validate import validate
from headway.trunk.quantization import SCHEMES, dequantized, is_quantized, stored_bytes
from headway.trunk.quantized_layers import integer_kernel_is_exact
from headway.trunk.scheme_names import SCHEME_NAMES
from tests.tiny import tiny_trunk

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'headway[quantize]'")

FLOAT32 = ["int8", "int8-dynamic"]  # schemes that run on a CPU in float32; int4 needs bfloat16


def small(scheme: str, family: str = "parallel", architecture: str = "llama") -> HeadwayModel:
    model = HeadwayModel.from_trunk(tiny_trunk(architecture, hidden_size=64, intermediate_size=128), family, count=2).eval()
    if scheme == "int4":
        in_bfloat16(model)
    model.quantize(scheme)
    return model


def in_bfloat16(model: HeadwayModel) -> None:
    """As loading does it: rotary frequencies stay in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def prompts(vocabulary: int = 61) -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of 4, 7 and 9 tokens, padded on the left, and their mask."""
    ids = torch.randint(3, vocabulary, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) >= torch.tensor([[5], [2], [0]])
    return ids.masked_fill(~mask, 0), mask.long()


def same_tokens(model: HeadwayModel, ids: torch.Tensor, mask: torch.Tensor, new: int = 24) -> None:
    """Speculative output is the quantised trunk's own, by transformers, row by row and in a batch."""
    assert exactness_issue(model.trunk) is None
    drafted = model.generate(ids, mask, max_new_tokens=new, do_sample=False, adaptive=False)
    assert drafted.stats.num_draft_tokens
    own = model.trunk.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False)
    width = min(drafted.sequences.shape[1], own.shape[1])
    assert torch.equal(drafted.sequences[:, :width], own[:, :width])
    for r, row in enumerate(ids):
        alone = model.generate(row[mask[r].bool()][None], max_new_tokens=new, do_sample=False).sequences[0]
        tokens = alone[int(mask[r].sum()) :].tolist()
        assert drafted.sequences[r, ids.shape[1] :].tolist()[: len(tokens)] == tokens


@pytest.mark.slow
@pytest.mark.parametrize("scheme", FLOAT32)
@pytest.mark.parametrize("family", ["parallel", "sequential", "eagle3", "gated-lora"])
def test_speculative_output_is_the_quantised_trunks_own(scheme: str, family: str) -> None:
    same_tokens(small(scheme, family), *prompts())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", FLOAT32)
@pytest.mark.parametrize("name", ["embedded", "stories260k"])
def test_speculative_output_is_the_quantised_trunks_own_on_trained_models(
    scheme: str, name: str, request: pytest.FixtureRequest
) -> None:
    folder = name if name == "embedded" else request.getfixturevalue("shared") / "models" / name
    model = HeadwayModel.from_pretrained(folder).eval()
    if not model.count:
        model = HeadwayModel.from_trunk(model.trunk, count=2).eval()
    model.quantize(scheme)
    same_tokens(model, *prompts(500), new=40)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int4", "int8"])
def test_in_bfloat16_every_token_has_the_quantised_trunks_highest_probability_up_to_rounding(scheme: str) -> None:
    model = HeadwayModel.from_pretrained("embedded").eval()
    in_bfloat16(model)
    model.quantize(scheme)
    assert exactness_issue(model.trunk) is None
    ids, mask = prompts(500)
    drafted = model.generate(ids, mask, max_new_tokens=40, do_sample=False, adaptive=False)
    assert drafted.stats.num_draft_tokens and drafted.stats.tokens_per_forward > 1.2
    for r, row in enumerate(drafted.sequences):
        new = row[ids.shape[1] :]
        ended = (new == model.trunk.config.eos_token_id).nonzero().flatten().tolist()
        text = torch.cat([ids[r, mask[r].bool()], new[: ended[0] + 1] if ended else new])  # what follows is padding
        with torch.no_grad():
            logits = model.trunk(text[None, :-1]).logits[0, int(mask[r].sum()) - 1 :].float()
        behind = logits.amax(1) - logits.gather(1, text[-len(logits) :, None])[:, 0]
        assert (behind <= 2.0**-6 * logits.abs().amax(1)).all()  # two steps of bfloat16


def test_quantised_activations_are_batch_invariant_bit_for_bit() -> None:
    if not integer_kernel_is_exact():
        pytest.skip("this CPU has no exact product of bytes")
    trunk = small("int8-dynamic").trunk
    ids = torch.randint(3, 61, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = trunk.model(ids).last_hidden_state[0]
        for length in range(1, 40, 7):
            assert torch.equal(trunk.model(ids[:, :length]).last_hidden_state[0], whole[:length])


def test_weights_shrink_and_embedding_and_unembedding_keep_full_precision() -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(hidden_size=64, intermediate_size=128, tie_word_embeddings=False), count=1)
    before = stored_bytes(model)
    model.quantize("int8")
    assert stored_bytes(model) < 0.5 * before
    assert not is_quantized(model.unembedding.weight) and not is_quantized(model.trunk.get_input_embeddings().weight)
    assert is_quantized(model.trunk.model.layers[0].mlp.up_proj.weight)
    assert model.heads is not None and any(is_quantized(value) for value in model.heads.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [*FLOAT32, "int4"])
@pytest.mark.parametrize("family", ["parallel", "sequential", "eagle3", "gated-lora"])
def test_output_is_the_same_after_saving_and_loading_twice(scheme: str, family: str, tmp_path: Path) -> None:
    model = small(scheme, family)
    ids, mask = prompts()
    expected = model.generate(ids, mask, max_new_tokens=16, do_sample=False, adaptive=False)
    for folder in (tmp_path / "once", tmp_path / "twice"):
        model.save_pretrained(folder)
        assert not [file for file in folder.iterdir() if file.suffix not in (".json", ".safetensors")]
        model = HeadwayModel.from_pretrained(folder).eval()
        found = model.generate(ids, mask, max_new_tokens=16, do_sample=False, adaptive=False)
        assert torch.equal(found.sequences, expected.sequences)
        assert found.stats.num_accepted_tokens_per_pos == expected.stats.num_accepted_tokens_per_pos  # the heads are the same too
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "twice").eval()
    assert is_quantized(plain.model.layers[0].mlp.up_proj.weight)
    if scheme == "int4":  # torchao multiplies by its plain layout on CUDA devices alone
        return
    with torch.no_grad():  # transformers attends in float32, so that quantised activations may round otherwise
        theirs, ours = plain(ids[2:]).logits, model.trunk(ids[2:]).logits
    assert (theirs - ours).abs().max() < (1e-5 if scheme == "int8" else 0.05) * ours.abs().max()


def test_new_heads_of_a_quantised_trunk_have_full_precision_and_saved_heads_stay_quantised(tmp_path: Path) -> None:
    model = small("int8")
    assert model.heads is not None
    model.heads.save_pretrained(tmp_path)
    fresh = HeadwayModel.from_trunk(model.trunk, count=2)
    assert fresh.heads is not None and not any(is_quantized(value) for value in fresh.heads.parameters())
    fresh.attach(tmp_path)
    assert any(is_quantized(value) for value in fresh.heads.parameters())
    full = HeadwayModel.from_trunk(tiny_trunk(hidden_size=64, intermediate_size=128), count=1)
    full.attach(tmp_path, count=1)
    same_tokens(full.eval(), *prompts())


def test_dequantised_weights_are_within_a_rounding_step() -> None:
    layer = nn.Sequential(nn.Linear(64, 32))
    before = layer[0].weight.detach().clone()
    from torchao.quantization import quantize_

    quantize_(layer, SCHEMES["int8"].config(torch.device("cpu")))
    after = dequantized(layer)[0].weight
    assert type(after) is nn.Parameter and (after - before).abs().max() <= before.abs().max() / 127


@pytest.mark.parametrize(("scheme", "reason"), [("int4", "float32"), ("fp8-dynamic", "8.9"), ("int7", "there are: int8")])
def test_a_scheme_that_does_not_run_here_is_refused_with_the_reason(scheme: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        HeadwayModel.from_trunk(tiny_trunk(), count=0).quantize(scheme)


def test_quantising_twice_and_trunks_without_linear_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="already"):
        small("int8").quantize("int8")
    with pytest.raises(UnsupportedModelError, match="no linear layers"):
        HeadwayModel.from_trunk(tiny_trunk("gpt2"), count=0).quantize("int8")


def test_without_torchao_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small("int8").save_pretrained(tmp_path)
    monkeypatch.setattr("headway.trunk.quantization.is_torchao_available", lambda: False)
    with pytest.raises(ConfigError, match=r"headway\[quantize\]"):
        small("int8")
    for module in ("transformers.utils.quantization_config", "transformers.quantizers.quantizer_torchao"):
        monkeypatch.setattr(sys.modules[module], "is_torchao_available", lambda: False)
    with pytest.raises(CheckpointError, match=r"headway\[quantize\]"):
        HeadwayModel.from_pretrained(tmp_path)


def test_a_trunk_that_is_not_batch_invariant_is_decoded_autoregressively_with_a_warning() -> None:
    model = small("int8-dynamic", architecture="mixtral")  # its experts are not quantised: float32 sums before quantised layers
    ids, mask = prompts()
    if exactness_issue(model.trunk) is None:
        pytest.skip("exact all the same here")
    with pytest.warns(UserWarning, match="decodes autoregressively"):
        model.generate(ids, mask, max_new_tokens=4, do_sample=False)


def test_a_quantised_model_is_not_trained(tmp_path: Path) -> None:
    config = HeadsTrainConfig(model="a-model", data="stdlib", output_dir=tmp_path, max_length=64)
    with pytest.raises(ConfigError, match="a-model is quantised and cannot be trained"):
        validate(config, small("int8"), load_tokenizer("embedded"))


def test_the_names_for_command_lines_are_the_schemes_there_are() -> None:
    assert tuple(SCHEMES) == SCHEME_NAMES


@pytest.mark.slow
def test_generate_quantises_and_auto_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["generate", "--prompt", "Once", "--max-new-tokens", "4", "--json"]
    assert main([*common, "--quantize", "int8"]) == 0
    assert json.loads(capsys.readouterr().out)["stats"]["tokens"] == 4
    assert main([*common, "--quantize", "auto"]) == 0
    assert "quantize auto chose" in capsys.readouterr().err
    assert main([*common, "--quantize", "fp8-dynamic"]) == 2
    assert "does not run here" in capsys.readouterr().err
