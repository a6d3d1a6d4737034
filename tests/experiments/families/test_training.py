"""Run of a family: its figures equal those of direct calls."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_trunk

import headway.config
from headway.data import PromptCompletion, Text, load_examples
from headway.errors import DataError
from headway.evaluation.benchmarks.drafting import drafting
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.specs import ALONE, FamilySpec, family_specs
from headway.experiments.families.training import MODEL, count_parameters, prompts_of, run, train_and_measure
from headway.heads import FAMILIES
from headway.model import HeadwayModel, load_model_and_tokenizer
from headway.objectives import MultiToken

SMALL: dict[str, Any] = {
    **{"data": "word-problems:1", "limit": 12, "validation": "word-problems:1", "test_examples": 4, "prompts": 2},
    **{
        "batch_size": 1,
        "max_length": 96,
        "num_heads": 2,
        "max_steps": 4,
        "max_new_tokens": 6,
        "repeats": 1,
        "learning_rate": 0.001,
    },
}


def specs(trunk: Path, **changes: Any) -> list[FamilySpec]:
    given = {**SMALL, "model": str(trunk), "output_dir": "unused", **changes}
    return family_specs(headway.config.build(HeadsCompareConfig, given, "test"))


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_figures_of_a_run_are_those_of_direct_calls(tmp_path: Path, trunk: Path, joint: bool) -> None:
    before, *_, spec = specs(trunk, families=["hydra"], joint=joint, temperatures=[0.0, 0.8])
    found, plain = train_and_measure(spec, tmp_path), train_and_measure(before, tmp_path / "trunk")
    model, tokenizer = load_model_and_tokenizer(str(tmp_path / MODEL))
    examples = load_examples("word-problems:1", "test", 4)
    losses = held_out_on(model, tokenizer, examples, 96)
    figures = found.metrics
    assert [figures["trunk_loss"], *figures["head_losses"]] == losses.losses and figures["agreement"] == losses.agreement
    assert (figures["trunk_loss"] == plain.metrics["trunk_loss"]) == (not joint), "a frozen trunk stays exactly what it was"
    prompts = [tokenizer(example.prompt)["input_ids"][-64:] for example in examples[:2]]
    assert found.decoding is not None and list(found.decoding) == ["0", "0.8"]
    for temperature, variants in found.decoding.items():
        again = drafting(model, prompts, 6, repeats=1, temperature=float(temperature))
        for name in ("chain", "tree"):
            assert variants[name].tokens_per_forward == again[name].tokens_per_forward
            assert variants[name].acceptance == again[name].acceptance and variants[name].identical
    by_step = json.loads((tmp_path / "seconds.json").read_text())["seconds"]
    assert figures["seconds"] == sum(by_step.values()) and len(by_step) == figures["steps"] == 4
    assert figures["step_seconds"] == by_step["4"], "the first steps warm up"
    assert (
        figures["memory_mib"] > 0
        and found.trained is not None
        and found.trained["learning_rate"] == pytest.approx(0.004 if joint else 0.001)
    )


@pytest.mark.slow
def test_joint_training_is_compared_with_training_without_heads(tmp_path: Path, trunk: Path) -> None:
    settings = {"head_weights": "medusa", "total_weight": 0.5, "objective": "distillation", "heads_learning_rate": 0.01}
    before, alone, _ = specs(trunk, families=["hydra"], joint=True, settings=settings)
    found, plain = train_and_measure(alone, tmp_path), train_and_measure(before, tmp_path / "trunk")
    model, tokenizer = load_model_and_tokenizer(str(tmp_path / MODEL))
    assert model.heads is None and alone.label == ALONE and found.metrics["steps"] == 4 and found.metrics["memory_mib"] > 0
    assert found.metrics["trunk_loss"] == held_out_on(model, tokenizer, load_examples("word-problems:1", "test", 4), 96).losses[0]
    assert found.metrics["trunk_loss"] != plain.metrics["trunk_loss"] and found.decoding is None


@pytest.mark.slow
def test_all_families_see_the_same_rows_in_the_same_order(tmp_path: Path, trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[list[int]]] = {}

    class Watching(MultiToken):
        def collate(self, examples: Any) -> Any:
            batch = super().collate(examples)
            seen.setdefault(family, []).append(batch["input_ids"].flatten().tolist())
            return batch

    monkeypatch.setattr("headway.training.stages.heads.MultiToken", Watching)
    for family in ("parallel", "redrafter"):  # one draws many random numbers at its start, one hardly any
        run(replace(specs(trunk, families=[family])[1], timing=True).to_json(), tmp_path / family)
    assert seen["parallel"] == seen["redrafter"] and len(seen["parallel"]) >= 8


@pytest.mark.parametrize(("family", "unembeddings"), [("parallel", 0), ("medusa", 2), ("redrafter", 1)])
def test_parameters_of_unembeddings_are_counted_apart(family: str, unembeddings: int) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), family, 2)
    assert model.heads is not None
    total, unembedding = count_parameters(model.heads, model.view)
    assert total == sum(parameter.numel() for parameter in model.heads.parameters())
    assert unembedding == unembeddings * 61 * 32


def test_parameters_of_every_family_are_counted() -> None:
    for family in FAMILIES:
        model = HeadwayModel.from_trunk(tiny_trunk(), family, 2)
        assert model.heads is not None
        total, unembedding = count_parameters(model.heads, model.view)
        assert 0 <= unembedding < total


def test_prompts_are_the_ends_of_prompts_and_the_beginnings_of_texts() -> None:
    def tokenizer(texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {
            "input_ids": [[int(digit) for digit in text] for text in texts],
            "special_tokens_mask": [[0] * len(text) for text in texts],
        }

    examples = [PromptCompletion("12345", "6"), *map(Text, ["123456", "1", "12", "13"])]
    assert prompts_of(examples, tokenizer, 3, 4) == [[2, 3, 4, 5], [1, 2, 3], [1]]


def test_validation_data_without_prompts_is_refused(tmp_path: Path, trunk: Path) -> None:
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="no text or prompt to continue"):
        train_and_measure(specs(trunk, families=["medusa"], validation=str(tmp_path / "short.jsonl"))[0], tmp_path)
