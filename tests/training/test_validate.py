"""Models, tokenizers and data that do not fit each other are refused at the start; trunks that take no masks train unpacked."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway.errors import CheckpointError, ConfigError, DataError
from headway.model import HeadwayModel
from headway.objectives import NextToken
from headway.training import distill, finetune, train_heads
from headway.training.configs import DistillConfig, FinetuneConfig, HeadsTrainConfig
from headway.training.validate import resolve_packing
from headway.trunk import TrunkView
from tests.tiny import ALL, tiny_trunk
from tests.training.recipes import losses, save_model, save_tokenizer, weights

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}
OWN_MASKS = [
    ("bloom", {"n_layer": 3, "n_head": 4}),
    ("falcon", {"alibi": True}),
    ("openai-gpt", {"n_layer": 3, "n_head": 4, "n_embd": 32}),
]
RECURRENT = [("mamba", {}), ("rwkv", {})]


def _save(architecture: str, overrides: dict, folder: Path) -> Path:
    tiny_trunk(architecture, **overrides).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def grown(tmp_path: Path) -> str:
    """A model whose tokenizer got two more tokens than its embedding has rows."""
    folder = save_model(tmp_path / "grown", vocab_size=26)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<user>", "<bot>"])
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_tokens_beyond_the_embedding_are_one_error_in_every_command(grown: str, data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    complaint = r"tokenizer has 28 tokens, and the model embeds 26: '<user>' \(token 26\) has no embedding"
    with pytest.raises(CheckpointError, match=complaint):
        finetune(FinetuneConfig(model=grown, data=data, output_dir=out, family="parallel", max_steps=1, **QUICK))
    with pytest.raises(CheckpointError, match=complaint):
        train_heads(HeadsTrainConfig(model=grown, data=data, output_dir=out, max_steps=1, **QUICK))
    with pytest.raises(CheckpointError, match=complaint):
        distill(DistillConfig(model=grown, data=data, output_file=tmp_path / "own.jsonl", limit=2))
    assert not out.exists() and not (tmp_path / "own.jsonl").exists()


def test_a_padding_token_beyond_the_embedding_is_no_hindrance(data: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "padded", vocab_size=26)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(folder)
    config = FinetuneConfig(
        model=str(folder), data=data, output_dir=tmp_path / "out", family="parallel", pack=False, max_steps=2, **QUICK
    )
    finetune(config)
    assert len(losses(tmp_path / "out")) == 2


def test_rows_longer_than_the_model_reads_are_refused(data: str, tmp_path: Path) -> None:
    folder = _save("gpt2", {"n_inner": 48, "max_position_embeddings": 40}, tmp_path / "short")
    for config in (FinetuneConfig, HeadsTrainConfig):
        run = finetune if config is FinetuneConfig else train_heads
        with pytest.raises(ConfigError, match="max_length 48 is more than the 40 tokens"):
            run(config(model=str(folder), data=data, output_dir=tmp_path / "out", family="parallel", max_steps=1, **QUICK))


def test_prompts_as_long_as_the_context_are_left_out(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "short", vocab_size=26, max_position_embeddings=16)
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": " ".join(["one"] * n), "completion": "two"}) + "\n" for n in (4, 16, 40)))
    config = {"model": str(folder), "data": str(data), "max_prompt_tokens": 64, "max_new_tokens": 4, "quiet": True}
    found = distill(DistillConfig(**config, output_file=tmp_path / "own.jsonl"))
    assert (found.samples, found.left_out) == (1, 2)
    data.write_text(json.dumps({"prompt": " ".join(["one"] * 20), "completion": "two"}) + "\n")
    with pytest.raises(DataError, match="all 1 prompts are empty or have more than 15 tokens"):
        distill(DistillConfig(**config, output_file=tmp_path / "none.jsonl"))


@pytest.mark.parametrize("architecture", ALL)
def test_trunks_that_follow_masks_take_packed_rows(architecture: str) -> None:
    view = TrunkView(tiny_trunk(architecture))
    config = FinetuneConfig(model="m", data="d", output_dir=Path("o"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_packing(config, view) is config


@pytest.mark.parametrize(("architecture", "overrides"), OWN_MASKS + RECURRENT)
def test_trunks_that_take_no_masks_train_unpacked_with_a_note(
    architecture: str, overrides: dict, data: str, tmp_path: Path
) -> None:
    folder = _save(architecture, overrides, tmp_path / "model")
    config = FinetuneConfig(
        model=str(folder), data=data, output_dir=tmp_path / "out", objective="next-token", max_steps=6, validation=data, **QUICK
    )
    cause = "recurrent layers" if architecture == "mamba" else "no 4-D attention masks"
    with pytest.warns(UserWarning, match=f"{cause}.*each gets a row of its own"):
        finetune(config)
    assert losses(tmp_path / "out")[-1] < losses(tmp_path / "out")[0] - 0.2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == architecture
    before, after = weights(folder), weights(tmp_path / "out")
    assert before.keys() == after.keys()


@pytest.mark.parametrize(("architecture", "overrides"), OWN_MASKS + RECURRENT)
def test_rows_of_different_lengths_have_the_loss_that_transformers_gives_each(architecture: str, overrides: dict) -> None:
    trunk = tiny_trunk(architecture, **overrides)
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 60, (n,), generator=draw).tolist() for n in (12, 7, 3)]
    batch = NextToken().collate([{"input_ids": row, "labels": row, "segments": [0] * len(row)} for row in rows])
    found = NextToken().loss(HeadwayModel.from_trunk(trunk, count=0), batch, 0.0, items=1).total
    expected = 0.0
    for row in rows:
        ids = torch.tensor([row])
        expected += float(trunk(input_ids=ids, labels=ids).loss.detach()) * (len(row) - 1)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
