"""What the benches report follows from what was decoded; no test looks at the clock."""

import pytest
import torch

from headway import HeadwayModel
from headway.cli import main
from headway.decoding import DecodeStats, heads_drafter
from headway.decoding.drafters.oracle import oracle_drafter
from headway.errors import ConfigError
from headway.evaluation.benchmarks import decode as decode_bench
from headway.evaluation.benchmarks import speedup_estimate as plan
from headway.evaluation.benchmarks.speed import measure_speed
from headway.evaluation.configs import DecodeBenchConfig, PlanConfig
from tests.tiny import tiny_trunk

FREE = {"max_new_tokens": 24, "eos_token_id": None}


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()


@pytest.mark.parametrize("heads", [None, heads_drafter("chain")])
@pytest.mark.parametrize(("rate", "per_round"), [(1.0, 4), (0.0, 1), (0.5, None)])
def test_told_drafts_are_right_as_often_as_they_should_be(model, heads, rate, per_round):
    ids = torch.tensor([[5, 9, 23], [7, 31, 8]])
    plain = model.generate(ids, plain=True, **FREE)
    answers = {tuple(row[:3]): row for row in plain.sequences.tolist()}
    out = model.generate(ids, drafter=oracle_drafter(answers, rate, 3, heads), adaptive=False, **FREE)
    assert torch.equal(out.sequences, plain.sequences)
    kept, reached = sum(out.stats.accepted), sum(out.stats.reached)
    if per_round is None:
        assert 0.2 < kept / reached < 0.8
    else:
        assert kept == (reached if rate else 0)
        assert out.stats.batches == 1 + -(-23 // per_round)


def test_break_even_is_where_tokens_make_up_for_the_cost():
    assert plan._break_even(1, 1.3) == pytest.approx(0.3)
    assert plan._break_even(3, 1.875) == pytest.approx(0.5)
    assert plan._break_even(2, 1.0) == pytest.approx(0.0)
    assert plan._break_even(2, 3.1) is None


def test_a_plan_says_what_it_measured():
    settings = {"heads": 2, "context": 5, "max_new_tokens": 6, "repeats": 1, "rates": [0.0, 1.0]}
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2).eval()
    found = plan.measure(PlanConfig(**settings), model, 2)
    assert list(found["cost"]) == [0, 1, 2] and found["cost"][0] == 1
    assert [f["tokens_per_forward"] for f in found["rates"].values()] == [1.0, 2.0]  # 6 tokens: one, then 3 and 2
    assert all(f["identical"] for f in found["rates"].values())


def test_speed_figures_are_those_of_the_decoding(model):
    measured = measure_speed(model, [[5, 9, 23], [7, 31], [12]], max_new_tokens=8, repeats=2, batch=2)
    assert measured.identical and len(measured.ratios) == 2 and len(measured.acceptance) == 3
    chain = [
        model.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), drafter=heads_drafter("chain"), adaptive=False, max_new_tokens=8
        ).stats
        for ids, mask in [([[5, 9, 23], [0, 7, 31]], [[1, 1, 1], [0, 1, 1]]), ([[12]], [[1]])]
    ]
    together = DecodeStats.together(chain)
    assert measured.acceptance == list(together.acceptance) and measured.chain == together.tokens_per_forward


def test_all_ways_to_decode_write_the_same(model):
    config = DecodeBenchConfig(max_new_tokens=6, repeats=1)
    for batch, ways in ((1, 7), (2, 6)):
        found = decode_bench._measure(config, model, [[5, 9, 23], [7, 31, 8]], batch)
        assert len(found) == ways and all(way.identical for way in found.values())
        figures = decode_bench._figures(found, model, 1e9)
        assert figures["plain"]["tokens_per_forward"] == 1 and figures["transformers"]["ratio"] == 1
        assert sum(figures["heads"]["split"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "plan", "--shape", "3x4"], "HIDDENxLAYERSxHEADS"),
        (["bench", "plan", "--rates", "1.5"], "rates must be from 0 to 1"),
        (["bench", "decode", "--batches", "0"], "batches must be whole numbers from 1"),
        (["bench", "decode", "--repeats", "0"], "repeats must be at least 1"),
        (["bench", "decod"], "Did you mean 'bench decode'"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(words) == 2
    assert message.lower() in capsys.readouterr().err.lower()


def test_a_shape_is_a_llama_of_that_shape():
    trunk = plan._shaped("32x2x4x2x48x61")
    assert (trunk.config.hidden_size, trunk.config.num_key_value_heads, trunk.config.vocab_size) == (32, 2, 61)
    with pytest.raises(ConfigError, match="HIDDEN"):
        plan._shaped("a-b")
