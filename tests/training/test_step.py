"""An objective of another kind, defined here, trains through the training step, the trainer and the loop as they are."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from headway.data import Preference, tokenize
from headway.data.collators import pad_columns
from headway.model import HeadwayModel, load_tokenizer
from headway.objectives import Batch, Loss, MultiToken, WithHeads
from headway.training.configs import FinetuneConfig
from headway.training.loop import run
from headway.training.step import TrainingStep
from tests.training.recipes import WORDS


class Pairs(Dataset):
    """Preferences of different lengths. Chosen completions end in words of the first half of the vocabulary."""

    def __init__(self, count: int, seed: int) -> None:
        draw, half = random.Random(seed), len(WORDS) // 2
        self.pairs = []
        for index in range(count):
            prompt, words = " ".join(draw.choices(WORDS, k=index % 4 + 1)), draw.choices(WORDS, k=3)
            ends = draw.choice(WORDS[:half]), draw.choice(WORDS[half:])
            chosen, rejected = (" " + " ".join([*words, end]) for end in ends)
            self.pairs.append(Preference(prompt, chosen, rejected))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Preference:
        return self.pairs[index]


class BradleyTerry(nn.Module):
    """-log sigmoid(r(chosen) - r(rejected)), with a scalar readout r of the last token (Bradley and Terry, 1952)."""

    def __init__(self, width: int, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.readout = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.readout.weight)

    def collate(self, examples: Sequence[Preference]) -> Batch:
        answers = [tokenize(answer, self.tokenizer, 64)[0] for example in examples for answer in example.pair()]
        batch = pad_columns(answers, {"input_ids": 0, "labels": -100})
        return {**batch, "lengths": torch.tensor([len(answer["input_ids"]) for answer in answers])}

    def count(self, batch: Batch) -> int:
        return len(batch["input_ids"]) // 2

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        hidden_states = model(batch["input_ids"], count=0).hidden_states[0]
        last = hidden_states[torch.arange(len(hidden_states)), batch["lengths"] - 2]  # the token before the end token
        chosen, rejected = self.readout(last.float()).view(-1, 2).unbind(1)
        losses = -F.logsigmoid(chosen - rejected)
        metrics = {"loss_preference": losses.mean().detach(), "accuracy": (chosen > rejected).float().mean()}
        return Loss(losses.sum() / (self.count(batch) if items is None else items), metrics)


def _train(model: str, out: Path, heads: bool = False, **changes: Any) -> tuple[HeadwayModel, list[dict[str, float]]]:
    settings: dict[str, Any] = {"batch_size": 8, "max_steps": 40, "learning_rate": 3e-3, "log_steps": 10, "quiet": True, **changes}
    config = FinetuneConfig(model=model, data="none", output_dir=out, validation="none", **settings)
    trained = HeadwayModel.from_trunk(model, count=2).train()
    objective: Any = BradleyTerry(trained.view.config.hidden_size, load_tokenizer(model))
    objective = WithHeads(objective, MultiToken(next_token=False)) if heads else objective
    trainer = run(config, trained, objective, Pairs(160, 0), Pairs(40, 1))
    return trained, trainer.state.log_history


def test_a_preference_loss_trains_through_the_loop(model: str, out: Path) -> None:
    _, history = _train(model, out)
    logged = [entry for entry in history if "loss" in entry]
    evaluated = [entry for entry in history if "eval_accuracy" in entry]
    assert logged[0]["loss_preference"] == pytest.approx(logged[0]["loss"], abs=1e-4)
    assert logged[-1]["loss"] < 0.3 and logged[-1]["accuracy"] > 0.9
    assert evaluated[-1]["eval_accuracy"] > 0.9 and evaluated[-1]["eval_loss_preference"] < 0.4
    assert not any(name.startswith("loss_1") for entry in history for name in entry)
    state = json.loads((out / "checkpoint-40" / "trainer_state.json").read_text())
    assert state["global_step"] == 40 and "objective.readout.weight" in _tensors(out / "checkpoint-40")


def test_pairs_are_what_a_preference_loss_is_divided_by(model: str, tmp_path: Path) -> None:
    found = []
    for name, batch, accumulation in (("big", 8, 1), ("small", 2, 4)):
        _, history = _train(model, tmp_path / name, batch_size=batch, gradient_accumulation=accumulation, max_steps=4, log_steps=1)
        found.append([entry["loss"] for entry in history if "loss" in entry])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_detached_heads_are_carried_along_and_change_no_bit_of_the_trunk(model: str, tmp_path: Path) -> None:
    alone, _ = _train(model, tmp_path / "alone", max_grad_norm=0.1)
    carried, history = _train(model, tmp_path / "carried", heads=True, max_grad_norm=0.1)
    for name, parameter in alone.trunk.named_parameters():
        assert torch.equal(parameter, carried.trunk.get_parameter(name))
    logged = [entry for entry in history if "loss_2" in entry]
    assert logged[-1]["loss_2"] < logged[0]["loss_2"] - 0.5 and logged[-1]["accuracy"] > 0.9


def test_a_step_hands_the_batch_of_its_objective_on_and_names_its_metrics(model: str) -> None:
    step = TrainingStep(HeadwayModel.from_trunk(model, count=0), BradleyTerry(32, load_tokenizer(model)))
    outputs = step(**step.objective.collate([Pairs(1, 0)[0]]), progress=0.5)
    assert outputs["loss"].item() == pytest.approx(0.6931, abs=1e-4)
    assert outputs["metrics"].keys() == {"loss_preference", "accuracy"}


def _tensors(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return list(file.keys())
