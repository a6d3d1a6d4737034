"""Adapters are merged, code inside a checkpoint never runs, and a tokenizer has to fit its model."""

import builtins
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from headway import HeadwayModel
from headway.errors import CheckpointError
from headway.model import (
    check_tokenizer_fits,
    load_model,
    load_model_and_tokenizer,
    load_tokenizer,
    load_trunk,
)
from tests.tiny import tiny_trunk
from tests.training.recipes import save_tokenizer

IDS = torch.tensor([[5, 9, 23, 4, 17, 8]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_trunk().save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base")
    return tmp_path / "base"


def add_adapter(base: Path, folder: Path, **options: object) -> torch.Tensor:
    """Write a LoRA adapter of random weights for `base` into `folder`; returns the logits of model and adapter."""
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).eval()
    model.save_pretrained(folder)
    return model(IDS).logits.detach()


def check_merged(model: HeadwayModel, expected: torch.Tensor, folder: Path) -> None:
    """The model and the folder that it is saved in are plain, trainable, and have the adapter's logits."""
    assert not any("lora" in name or "base_layer" in name for name, _ in model.trunk.named_parameters())
    assert all(parameter.requires_grad for parameter in model.trunk.parameters())
    torch.testing.assert_close(model.trunk(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    model.save_pretrained(folder)
    assert not any("adapter" in file.name for file in folder.iterdir())
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(folder)(IDS).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("modules", [None, ["lm_head"]])
def test_an_adapter_alone_is_merged_into_its_base_model(base, tmp_path, modules):
    expected = add_adapter(base, tmp_path / "adapter", modules_to_save=modules)
    model = HeadwayModel.from_trunk(tmp_path / "adapter", count=1)
    check_merged(model, expected, tmp_path / "saved")
    assert HeadwayModel.from_pretrained(tmp_path / "saved").count == 1
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == load_tokenizer(base).get_vocab()


def test_a_config_beside_the_adapter_makes_no_difference(base, tmp_path):
    expected = add_adapter(base, tmp_path / "adapter")
    shutil.copy(base / "config.json", tmp_path / "adapter")
    check_merged(HeadwayModel.from_pretrained(tmp_path / "adapter"), expected, tmp_path / "saved")


def test_an_adapter_beside_full_weights_is_merged_as_transformers_applies_it(base):
    expected = add_adapter(base, base)
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(base)(IDS).logits, expected)
    with pytest.warns(UserWarning, match="is merged into the weights beside it"):
        model = HeadwayModel.from_pretrained(base)
    check_merged(model, expected, base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trunk(base)


def test_heads_beside_an_adapter_are_loaded(base, tmp_path):
    add_adapter(base, tmp_path / "adapter")
    HeadwayModel.from_trunk(base, count=2).heads.save_pretrained(tmp_path / "adapter")
    assert HeadwayModel.from_pretrained(tmp_path / "adapter").count == 2


def test_an_adapter_that_cannot_be_merged_is_refused(base, tmp_path):
    folder = tmp_path / "prompt"
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"adapter in .*prompt cannot be merged"):
        load_trunk(folder)
    add_adapter(base, tmp_path / "cut")
    file = tmp_path / "cut" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(min(tensors))
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"adapter in .*cut cannot be merged.*missing adapter keys"):
        load_trunk(tmp_path / "cut")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json without adapter_model\.safetensors"):
        load_trunk(tmp_path / "cut")


def test_an_adapter_without_a_base_model_is_refused(base, tmp_path):
    add_adapter(base, tmp_path / "adapter")
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="neither a folder here nor a model"):
        load_trunk(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(CheckpointError, match="names no base model"):
        load_trunk(tmp_path / "adapter")


def test_a_loaded_trunk_with_an_adapter_is_refused(base):
    trunk = tiny_trunk()
    trunk.add_adapter(LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(CheckpointError, match="carries an adapter"):
        HeadwayModel.from_trunk(trunk, count=1)
    model = HeadwayModel.from_trunk(base, count=0)
    model.trunk.add_adapter(LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(CheckpointError, match="carries an adapter"):
        model.save_pretrained(base)


CODE = "open({!r}, 'w').write('ran')\nfrom transformers import *\nclass Own(LlamaConfig): model_type = 'own_lm'\n"


def need_code(folder: Path, file: str, **settings: object) -> Path:
    """Change a settings file so that the folder runs only with code of its own; returns the trace that the code leaves."""
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | settings))
    (folder / "own_code.py").write_text(CODE.format(str(folder / "ran")))
    return folder / "ran"


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr(builtins, "input", ask)


@pytest.mark.parametrize("load", [load_trunk, load_model, HeadwayModel.from_trunk, HeadwayModel.from_pretrained])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_model_with_code_of_its_own_is_refused_without_a_question(base, tmp_path, no_questions, load, adapter):
    folder = base
    if adapter:
        add_adapter(base, folder := tmp_path / "adapter")
    auto_map = {"AutoConfig": "own_code.Own", "AutoModelForCausalLM": "own_code.OwnLM"}
    ran = need_code(base, "config.json", model_type="own_lm", architectures=["OwnLM"], auto_map=auto_map)
    with pytest.raises(CheckpointError, match=r"code of its own \(own_code\.Own, own_code\.OwnLM\)"):
        load(folder)
    assert not ran.exists()


def test_a_tokenizer_with_code_of_its_own_is_refused_without_a_question(base, no_questions):
    auto_map = {"AutoTokenizer": ["own_code.Tokens", None]}
    ran = need_code(base, "tokenizer_config.json", tokenizer_class="OwnTokens", auto_map=auto_map)
    with pytest.raises(CheckpointError, match=r"tokenizer of .* code of its own \(own_code\.Tokens\)"):
        load_model_and_tokenizer(base)
    assert not ran.exists()


def test_code_for_generation_and_code_beside_known_classes_is_left_alone(base, no_questions):
    ran = need_code(base, "config.json", auto_map={"AutoModelForCausalLM": "own_code.OwnLM"})
    (base / "custom_generate").mkdir()
    shutil.copy(base / "own_code.py", base / "custom_generate" / "generate.py")
    model, _ = load_model_and_tokenizer(base)
    model.generate(IDS, max_new_tokens=2)
    assert type(model.trunk).__name__ == "LlamaForCausalLM" and not ran.exists()


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_one_error(base, damage):
    (base / damage).write_bytes((base / damage).read_bytes()[:100])
    with pytest.raises(CheckpointError, match=str(base)):
        load_trunk(base)


def test_a_tokenizer_larger_than_the_embedding_is_refused(base):
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens([f"<extra {n}>" for n in range(61 - len(tokenizer) + 1)])
    tokenizer.save_pretrained(base)
    with pytest.raises(CheckpointError, match=r"62 tokens, and the model embeds 61: '<extra \d+>' \(token 61\) has no embedding"):
        load_model_and_tokenizer(base)


def test_a_padding_token_without_an_embedding_is_replaced(base):
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens([f"<extra {n}>" for n in range(61 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    assert tokenizer.pad_token_id == 61
    tokenizer.save_pretrained(base)
    model, loaded = load_model_and_tokenizer(base)
    assert loaded.pad_token == "</s>"
    check_tokenizer_fits(model.trunk, tokenizer)


def test_a_tokenizer_with_gaps_is_judged_by_its_largest_token(base):
    words = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
    state = json.loads(words.backend_tokenizer.to_str())
    state["model"]["vocab"]["beyond"] = 61
    words = PreTrainedTokenizerFast(tokenizer_object=type(words.backend_tokenizer).from_str(json.dumps(state)))
    assert len(words) < 61
    with pytest.raises(CheckpointError, match=r"'beyond' \(token 61\)"):
        check_tokenizer_fits(load_model(base), words)
