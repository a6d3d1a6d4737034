"""Heads that know few tokens: which ones, how much of the data they are, and that the output does not change."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from headway.decoding import heads_drafter
from headway.errors import ConfigError
from headway.model import HeadwayModel, load_tokenizer
from headway.training import train_heads
from headway.training.configs import HeadsTrainConfig
from headway.training.datasets import build_dataset
from headway.training.draft_vocabulary import most_frequent

QUICK = {"max_length": 48, "batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "completion_only": True}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.integers(1, 19), st.sets(st.integers(0, 30), max_size=4))
def test_the_most_frequent_are_those_that_a_counter_says(tokens: list[int], size: int, always: set[int]) -> None:
    found = most_frequent(np.bincount(tokens, minlength=21), size, always).tolist()
    assert found == sorted(set(found)) and all(token in found for token in always if token <= 20)
    counted = Counter(tokens)
    ranked = sorted(range(21), key=lambda token: (-counted[token], token))[:size]
    assert set(found) == {*ranked, *(token for token in always if token <= 20)}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["parallel", "sequential", "medusa", "hydra"])
@pytest.mark.parametrize("objective", ["multi-token", "distillation"])
def test_heads_that_know_few_tokens_draft_them_alone_and_change_no_output(
    model: str, data: str, out: Path, family: str, objective: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = HeadsTrainConfig(
        model=model, data=data, output_dir=out, family=family, num_heads=2, objective=objective, draft_vocabulary=6, **QUICK
    )
    train_heads(config)
    tokenizer = load_tokenizer(model)
    rows = build_dataset(config, tokenizer, completion_only=True)
    counted = Counter(label for row in rows for label in row["labels"] if label != -100)
    trained = HeadwayModel.from_pretrained(out).eval()
    ranked = sorted(range(61), key=lambda token: (-counted[token], token))[:6]
    assert trained.heads.draft_tokens.tolist() == sorted({*ranked, *tokenizer.all_special_ids, 2})
    record = json.loads((out / "headway.json").read_text())["training"]
    share = sum(counted[token] for token in trained.heads.draft_tokens.tolist()) / sum(counted.values())
    assert record["draft_vocabulary"] == len(trained.heads.draft_tokens) and record["draft_vocabulary_share"] == pytest.approx(
        share
    )
    assert f"predict {len(trained.heads.draft_tokens)} of 61 tokens, which are {share:.2%}" in capsys.readouterr().err
    for k, unembedding in enumerate(trained.unembeddings[1:]):
        logits = unembedding.logits(trained(torch.tensor([[5, 6, 7, 8]])).hidden_states[k + 1])
        assert set(logits.isfinite().nonzero()[:, -1].tolist()) == set(trained.heads.draft_tokens.tolist())
    ids = AutoTokenizer.from_pretrained(out)(["one plus two", "the cat sat"], return_tensors="pt")["input_ids"]
    plain = trained.trunk.generate(ids, do_sample=False, max_new_tokens=30)
    ours = trained.generate(ids, drafter=heads_drafter(), adaptive=False, max_new_tokens=30, do_sample=False)
    assert torch.equal(ours.sequences, plain) and ours.stats.num_draft_tokens > 0


@pytest.mark.slow
def test_a_resumed_run_counts_the_same_tokens(model: str, data: str, tmp_path: Path) -> None:
    settings = {**QUICK, "save_steps": 2, "quiet": True, "family": "medusa", "num_heads": 1, "draft_vocabulary": 9}
    config = HeadsTrainConfig(model=model, data=data, output_dir=tmp_path / "out", **settings)
    train_heads(config)
    before = (tmp_path / "out" / "headway.safetensors").read_bytes()
    (tmp_path / "out" / "checkpoint-4" / "whole.json").unlink()
    train_heads(config)
    assert (tmp_path / "out" / "headway.safetensors").read_bytes() == before


def test_a_vocabulary_that_leaves_nothing_out_or_is_chosen_already_is_refused(model: str, data: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draft_vocabulary must be at least 1"):
        HeadsTrainConfig(model=model, data=data, output_dir=tmp_path / "a", draft_vocabulary=0)
    with pytest.raises(ConfigError, match="a setting, not an option of a family"):
        HeadsTrainConfig(model=model, data=data, output_dir=tmp_path / "a", options={"draft_vocabulary": 3})
    with pytest.raises(ConfigError, match="below the 61 tokens of the trunk, got 61"):
        train_heads(HeadsTrainConfig(model=model, data=data, output_dir=tmp_path / "a", draft_vocabulary=61, **QUICK))
    train_heads(HeadsTrainConfig(model=model, data=data, output_dir=tmp_path / "few", draft_vocabulary=5, **QUICK))
    with pytest.raises(ConfigError, match=r"vocabulary of \d+ tokens already"):
        train_heads(
            HeadsTrainConfig(
                model=model, heads=str(tmp_path / "few"), data=data, output_dir=tmp_path / "b", draft_vocabulary=5, **QUICK
            )
        )
