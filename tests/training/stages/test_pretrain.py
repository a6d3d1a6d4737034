"""A model from scratch is an ordinary Hugging Face folder."""

import dataclasses
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway.training import pretrain
from headway.training.configs import PretrainConfig
from tests.training.recipes import losses, save_data, save_tokenizer

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}


@pytest.mark.slow
def test_pretraining_writes_an_ordinary_folder_and_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    data = save_data(tmp_path / "text.jsonl")
    save_tokenizer(tmp_path / "tokenizer")
    config = PretrainConfig(
        data=[str(data)],
        tokenizer=str(tmp_path / "tokenizer"),
        output_dir=tmp_path / "plain",
        hidden_size=16,
        layers=2,
        attention_heads=2,
        key_value_heads=1,
        intermediate_size=16,
        max_steps=3,
        **QUICK,
    )
    pretrain(config)
    other = dataclasses.replace(config, output_dir=tmp_path / "checkpointing", gradient_checkpointing=True)
    pretrain(other)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert plain.config.tie_word_embeddings and len(AutoTokenizer.from_pretrained(tmp_path / "plain")) == 26
    assert losses(tmp_path / "plain") == pytest.approx(losses(tmp_path / "checkpointing"), abs=1e-4)
    assert list((tmp_path / "plain" / "cache").iterdir())
