"""Estimates follow from the decoding and from arithmetic. No test reads the clock."""

import json
from pathlib import Path

import pytest
import torch

from headway import HeadwayModel
from headway.cli import main
from headway.decoding import heads_drafter
from headway.decoding.drafters.oracle import oracle_drafter
from headway.errors import ConfigError
from headway.evaluation.benchmarks import speedup_estimate
from headway.evaluation.configs import PlanConfig
from tests.tiny import tiny_trunk

FREE = {"max_new_tokens": 24, "eos_token_id": None}


@pytest.mark.parametrize("heads", [None, heads_drafter("chain")])
@pytest.mark.parametrize(("rate", "per_step"), [(1.0, 4), (0.0, 1), (0.5, None)])
def test_oracle_drafts_are_accepted_at_the_rate_asked_for(heads, rate, per_step):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()
    ids = torch.tensor([[5, 9, 23], [7, 31, 8]])
    expected = model.generate(ids, speculative=False, **FREE)
    answers = {tuple(row[:3]): row for row in expected.sequences.tolist()}
    out = model.generate(ids, drafter=oracle_drafter(answers, rate, 3, heads), adaptive=False, **FREE)
    assert torch.equal(out.sequences, expected.sequences)
    accepted, reached = sum(out.stats.num_accepted_tokens_per_pos), sum(out.stats.num_drafts_per_pos)
    if per_step is None:
        assert 0.2 < accepted / reached < 0.8
    else:
        assert accepted == (reached if rate else 0)
        assert out.stats.num_steps == 1 + -(-23 // per_step)


def test_the_break_even_rate_makes_up_for_the_cost():
    assert speedup_estimate._break_even(1, 1.3) == pytest.approx(0.3)
    assert speedup_estimate._break_even(3, 1.875) == pytest.approx(0.5)
    assert speedup_estimate._break_even(2, 1.0) == pytest.approx(0.0)
    assert speedup_estimate._break_even(2, 3.1) is None


def test_an_estimate_counts_the_tokens_of_its_decoding():
    settings = {"heads": 2, "context": 5, "max_new_tokens": 6, "repeats": 1, "rates": [0.0, 1.0]}
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2).eval()
    estimate = speedup_estimate.measure(PlanConfig(**settings), model, 2)
    assert list(estimate.cost) == [0, 1, 2] and estimate.cost[0] == 1
    assert [result.tokens_per_forward for result in estimate.rates.values()] == [1.0, 2.0]  # 6 tokens: one, then 3 and 2
    assert all(result.identical for result in estimate.rates.values())


def test_the_command_prints_a_table_and_writes_the_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    words = ["--shape", "32x2x4x2x48x61", "--heads", "2", "--batches", "1", "2", "--context", "4", "--max-new-tokens", "4"]
    assert main(["bench", "plan", *words, "--repeats", "1", "--rates", "0.5", "--output-file", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "pays from" in shown and "accepted 50%" in shown and "batch 2" in shown
    batches = json.loads(file.read_text())["batches"]
    assert list(batches) == ["1", "2"] and list(batches["1"]["cost"]) == ["0", "1", "2"]
    assert set(batches["2"]["rates"]["0.5"]) >= {"speed", "speed_min", "speed_max", "ceiling", "of_ceiling", "identical"}


def test_a_shape_is_a_llama_of_that_shape():
    trunk = speedup_estimate._random_llama("32x2x4x2x48x61")
    assert (trunk.config.hidden_size, trunk.config.num_key_value_heads, trunk.config.vocab_size) == (32, 2, 61)
    with pytest.raises(ConfigError, match="HIDDEN"):
        speedup_estimate._random_llama("a-b")
