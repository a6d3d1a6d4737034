"""Scores and stories of the induction task."""

from pathlib import Path

import pytest
import torch
from tests.experiments.reproduce.tiny import SIZES

from headway.data import Collator, Encoded, row_of
from headway.experiments.reproduce import induction, scratch
from headway.experiments.reproduce.configs import SHAPES, InductionConfig
from headway.experiments.reproduce.models import fresh_model
from headway.experiments.reproduce.specs import ReproductionSpec


def test_a_model_can_learn_stories_of_files(shared: Path) -> None:
    stories = str(shared / "data" / "tinystories_en")
    task = induction.task_of(InductionConfig(**SIZES, stories=stories).resolved())
    row = task.tokenizer.convert_ids_to_tokens(task.row(0, 1)["input_ids"])
    assert len(row) > 60 and row.count("<unk>") < 6 and any(token.endswith("~") for token in row)
    assert task.score(fresh_model(SHAPES["0.05M"], 1, len(task.tokenizer), 256, 0))["probability"] < 0.01


def test_induction_is_scored_at_the_positions_of_the_test_set_alone() -> None:
    model = fresh_model(SHAPES["0.05M"], 1, 20, 64, 0).eval()
    ids = [4, 9, 5, 6, 4, 9, 7, 4, 9]
    row = row_of([Encoded(input_ids=ids, labels=ids)])
    batch = Collator(0)([row])
    with torch.no_grad():
        guesses = model.trunk(batch["input_ids"]).logits.softmax(-1)[0]
    found = induction.score(model, induction.TestSet([row, row], [[5], [8]]))
    assert found["probability"] == pytest.approx(float(guesses[4, 9] + guesses[7, 9]) / 2, abs=1e-5)
    assert found["accuracy"] == (int(guesses[4].argmax() == 9) + int(guesses[7].argmax() == 9)) / 2


@pytest.mark.slow
def test_a_model_of_the_papers_size_takes_one_step(tmp_path: Path) -> None:
    config = InductionConfig(
        scale="paper", output_dir=tmp_path, sizes=["1M"], steps=1, batch_size=2, test_examples=4, points=1
    ).resolved()
    found = scratch.learn(config, induction.task_of(config), ReproductionSpec("n=2", "1M", 0, 2), tmp_path / "run")
    assert 900_000 < (found.parameters or 0) < 1_100_000 and 0 <= found.metrics["probability"] <= 1
