"""Scores of the polynomial task."""

from pathlib import Path

import pytest
import torch

from headway.data import Encoded, row_of
from headway.experiments.reproduce import polynomial, scratch
from headway.experiments.reproduce.configs import SHAPES, PolynomialConfig
from headway.experiments.reproduce.models import fresh_model
from headway.experiments.reproduce.specs import ReproductionSpec


def test_an_answer_is_right_if_greedy_decoding_generates_it() -> None:
    model = fresh_model(SHAPES["0.05M"], 1, 20, 64, 0).eval()
    prompts = [[5 + i, 4, 9] for i in range(6)]
    with torch.no_grad():
        written = [
            model.generate(torch.tensor([p]), max_new_tokens=3, eos_token_id=None).sequences[0, 3:].tolist() for p in prompts
        ]
    answers = [w if i % 2 else [w[0], (w[1] + 1) % 20, w[2]] for i, w in enumerate(written)]
    rows = [row_of([Encoded(input_ids=p + a, labels=[-100] * 3 + a)]) for p, a in zip(prompts, answers, strict=True)]
    assert polynomial.exact(model, rows) == 0.5


@pytest.mark.slow
def test_a_small_model_learns_to_negate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.data.generated.polynomial.OPERATORS", ("-",))
    sizes = {"sizes": ["0.25M"], "steps": 120, "batch_size": 16, "test_examples": 50, "points": 1, "trained": 1, "tested": 1}
    config = PolynomialConfig(output_dir=tmp_path, **sizes).resolved()
    found = scratch.learn(config, polynomial.task_of(config, 0), ReproductionSpec("n=2", "0.25M", 0, 2), tmp_path / "run")
    assert found.metrics["m=1"] > 0.5  # by chance, 7^-5
