"""One family's run: its figures are those of the functions they come from, and its memory is counted."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.tiny import tiny_trunk

import headway.config
from headway.data import PromptCompletion, Text, load_examples
from headway.errors import DataError
from headway.evaluation.benchmarks.drafting import drafting
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.compare.worker import MODEL
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.runs import ALONE, specs_of
from headway.experiments.families.worker import Memory, parameters, prompts_of, work
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


def specs(trunk: Path, **changes: Any) -> list[dict[str, Any]]:
    given = {**SMALL, "model": str(trunk), "output_dir": "unused", **changes}
    return list(specs_of(headway.config.build(HeadsCompareConfig, given, "test")).values())


@pytest.mark.parametrize("joint", [False, True])
def test_figures_of_a_run_are_those_of_direct_calls(tmp_path: Path, trunk: Path, joint: bool) -> None:
    before, *_, spec = specs(trunk, families=["hydra"], joint=joint, temperatures=[0.0, 0.8])
    found, plain = work(tmp_path, spec), work(tmp_path / "trunk", before)
    model, tokenizer = load_model_and_tokenizer(str(tmp_path / MODEL))
    examples = load_examples("word-problems:1", "test", 4)
    losses = held_out_on(model, tokenizer, examples, 96)
    assert [found["trunk_loss"], *found["head_losses"]] == losses.losses and found["agreement"] == losses.agreement
    assert (found["trunk_loss"] == plain["trunk_loss"]) == (not joint), "a frozen trunk stays exactly what it was"
    prompts = [tokenizer(example.prompt)["input_ids"][-64:] for example in examples[:2]]
    for temperature, ways in found["decoding"].items():
        again = drafting(model, prompts, 6, repeats=1, temperature=float(temperature))
        for name in ("chain", "tree"):
            assert ways[name]["tokens_per_forward"] == again[name].tokens_per_forward
            assert ways[name]["acceptance"] == again[name].acceptance and ways[name]["identical"]
    by_step = json.loads((tmp_path / "seconds.json").read_text())["seconds"]
    assert found["seconds"] == sum(by_step.values()) and len(by_step) == found["steps"] == 4
    assert found["step_seconds"] == by_step["4"], "the first steps warm up"
    assert found["memory_mib"] > 0 and found["trained"]["learning_rate"] == pytest.approx(0.004 if joint else 0.001)


def test_a_learning_trunk_is_set_against_one_that_learns_without_heads(tmp_path: Path, trunk: Path) -> None:
    settings = {"head_weights": "medusa", "total_weight": 0.5, "objective": "distillation", "heads_learning_rate": 0.01}
    before, alone, _ = specs(trunk, families=["hydra"], joint=True, settings=settings)
    found, plain = work(tmp_path, alone), work(tmp_path / "trunk", before)
    model, tokenizer = load_model_and_tokenizer(str(tmp_path / MODEL))
    assert model.heads is None and alone["label"] == ALONE and found["steps"] == 4 and found["memory_mib"] > 0
    assert found["trunk_loss"] == held_out_on(model, tokenizer, load_examples("word-problems:1", "test", 4), 96).losses[0]
    assert found["trunk_loss"] != plain["trunk_loss"] and "decoding" not in found


def test_all_families_see_the_same_rows_in_the_same_order(tmp_path: Path, trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[list[int]]] = {}

    class Watching(MultiToken):
        def collate(self, examples: Any) -> Any:
            batch = super().collate(examples)
            seen.setdefault(family, []).append(batch["input_ids"].flatten().tolist())
            return batch

    monkeypatch.setattr("headway.training.stages.heads.MultiToken", Watching)
    for family in ("parallel", "redrafter"):  # one draws many random numbers at its start, one hardly any
        work(tmp_path / family, {**specs(trunk, families=[family])[1], "rate": True})
    assert seen["parallel"] == seen["redrafter"] and len(seen["parallel"]) >= 8


@pytest.mark.parametrize(("family", "unembeddings"), [("parallel", 0), ("medusa", 2), ("redrafter", 1)])
def test_parameters_of_unembeddings_are_counted_apart(family: str, unembeddings: int) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), family, 2)
    assert model.heads is not None
    total, read_through = parameters(model.heads, model.view)
    assert total == sum(parameter.numel() for parameter in model.heads.parameters())
    assert read_through == unembeddings * 61 * 32


def test_every_family_can_be_counted() -> None:
    for family in FAMILIES:
        model = HeadwayModel.from_trunk(tiny_trunk(), family, 2)
        assert model.heads is not None
        total, read_through = parameters(model.heads, model.view)
        assert 0 <= read_through < total


def test_prompts_are_the_ends_of_prompts_and_the_beginnings_of_texts() -> None:
    def tokenizer(texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {
            "input_ids": [[int(digit) for digit in text] for text in texts],
            "special_tokens_mask": [[0] * len(text) for text in texts],
        }

    examples = [PromptCompletion("12345", "6"), *map(Text, ["123456", "1", "12", "13"])]
    assert prompts_of(examples, tokenizer, 3, 4) == [[2, 3, 4, 5], [1, 2, 3], [1]]


def test_validation_without_anything_to_continue_is_refused(tmp_path: Path, trunk: Path) -> None:
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="no text or prompt to continue"):
        work(tmp_path, specs(trunk, families=["medusa"], validation=str(tmp_path / "short.jsonl"))[0])


def test_memory_is_that_of_the_steps_before_the_first_checkpoint_and_of_the_heads(tmp_path: Path) -> None:
    heads = torch.nn.Linear(2**18, 4, bias=False)  # 4 MiB
    arguments: tuple[Any, ...] = (SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(global_step=0), None)
    kwargs = {"model": SimpleNamespace(model=SimpleNamespace(heads=heads))}
    memory = Memory(tmp_path / "memory.json")
    memory.on_train_begin(*arguments, **kwargs)
    taken = torch.ones(2**24)  # 64 MiB
    time.sleep(0.3)  # it is sampled
    memory.on_save(*arguments)
    assert 64 < memory.peak < 90 and taken.sum() > 0
    resumed = Memory(tmp_path / "memory.json")
    resumed.on_train_begin(arguments[0], SimpleNamespace(global_step=2), None, **kwargs)
    resumed.on_train_end(*arguments)
    assert resumed.peak == memory.peak
