"""Specs of a comparison: shared samples, steps in the budget, baselines, and refused settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from headway.errors import ConfigError, DataError
from headway.experiments.compare.configs import CompareConfig, TaskConfig
from headway.experiments.compare.specs import ArmSpec, StepRates, arm_specs, baseline_of, tokens_per_step, training_settings


def config(tmp_path: Path, **changes: Any) -> CompareConfig:
    given: dict[str, Any] = {
        "output_dir": tmp_path,
        "arms": {"next-token": {"objective": "next-token"}, "two heads": {"num_heads": 2}},
        "tasks": {"sums": TaskConfig(data="word-problems:1", examples=20, test_examples=4)},
        "settings": {"batch_size": 2, "max_length": 64},
        "seeds": 2,
        "budget": 10,
    }
    return CompareConfig(**{**given, **changes})


def test_arms_of_a_seed_learn_from_the_same_sample_and_seeds_from_different_ones(tmp_path: Path) -> None:
    runs = [run for run in arm_specs(config(tmp_path)) if run.finetune is not None]
    by_seed: dict[int, set[str]] = {}
    for run in runs:
        assert run.finetune is not None
        by_seed.setdefault(run.seed, set()).add(run.finetune["data"])
    first, second = (files.pop() for files in by_seed.values() if len(files) == 1)
    texts = [Path(file).read_text().splitlines() for file in (first, second)]
    assert all(len(text) == 20 for text in texts) and texts[0] != texts[1]
    assert not {run.name for run in runs} - {run.name for run in arm_specs(config(tmp_path))}


def test_equal_samples_are_not_written_again(tmp_path: Path) -> None:
    arm_specs(config(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").iterdir()}
    arm_specs(config(tmp_path))
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "data").iterdir()}


def test_names_that_differ_in_punctuation_have_different_folders(tmp_path: Path) -> None:
    arms = {"next-token": {"objective": "next-token"}, "a b": {}, "a-b": {}, "a/b": {}}
    names = [run.name for run in arm_specs(config(tmp_path, arms=arms))]
    assert len(set(names)) == len(names) and not any(set(name) & set("/ ") for name in names)


def test_a_warm_up_counts_towards_a_budget_in_tokens(tmp_path: Path) -> None:
    warm = {"warm_up": {"max_steps": 3}, "family": "parallel", "num_heads": 1}
    arms = {"next-token": {"objective": "next-token"}, "warmed": warm}
    runs = arm_specs(config(tmp_path, arms=arms, match="tokens", budget=10 * 2 * 64))
    assert {run.arm: run.steps for run in runs if run.finetune} == {"next-token": 10, "warmed": 7}
    warmed = next(run for run in runs if run.arm == "warmed")
    assert warmed.warm_up is not None and warmed.warm_up["num_heads"] == 1 and warmed.warm_up["max_length"] == 64
    assert warmed.finetune is not None and "num_heads" not in warmed.finetune


def test_a_budget_in_seconds_gives_a_slow_arm_fewer_steps(tmp_path: Path) -> None:
    rates = {"sums/next-token": StepRates(0.5, 0.0), "sums/two heads": StepRates(0.8, 0.0)}
    runs = arm_specs(config(tmp_path, match="seconds", budget=8), rates)
    assert {run.arm: run.steps for run in runs if run.finetune} == {"next-token": 16, "two heads": 10}


def test_a_budget_that_the_warm_up_uses_up_is_refused(tmp_path: Path) -> None:
    arms = {"next-token": {"objective": "next-token"}, "warmed": {"warm_up": {"max_steps": 30}, "num_heads": 1}}
    with pytest.raises(ConfigError, match="'warmed': a budget of 1280 tokens leaves no step"):
        arm_specs(config(tmp_path, arms=arms, match="tokens", budget=10 * 2 * 64))


def test_the_last_point_is_the_last_step(tmp_path: Path) -> None:
    run = arm_specs(config(tmp_path, points=3))[-1]
    assert run.points == [3, 7, 10]


def test_an_arm_is_compared_with_the_baseline_of_its_own_model(tmp_path: Path) -> None:
    arms: dict[str, Any] = {
        "small plain": {"objective": "next-token"},
        "large plain": {"objective": "next-token", "model": "large"},
        "small heads": {},
        "large heads": {"model": "large"},
    }
    names = {"large": "some/large-model"}
    found = config(tmp_path, arms=arms, models=names, baseline=["small plain", "large plain"])
    assert [baseline_of(found, arm) for arm in arms] == [None, None, "small plain", "large plain"]
    with pytest.raises(ConfigError, match="'large heads' starts from some/large-model, of which 0 baselines"):
        baseline_of(config(tmp_path, arms=arms, models=names, baseline=["small plain"]), "large heads")


@pytest.mark.parametrize(
    ("arm", "complaint"),
    [
        ({"head_weight": "beta"}, "arm 'odd': unknown key 'head_weight'; did you mean 'head_weights'"),
        ({"seed": 3}, "arm 'odd': the comparison sets seed"),
        ({"warm_up": {"objective": "multi-token"}}, "max_steps among the settings"),
        ({"warm_up": {"max_steps": 2, "hats": 3}}, "arm 'odd', warm_up: unknown key 'hats'"),
        ({"freeze_trunk": True, "objective": "next-token"}, "contradict"),
    ],
)
def test_wrong_settings_of_an_arm_are_refused(tmp_path: Path, arm: dict, complaint: str) -> None:
    given = config(tmp_path, arms={"next-token": {}, "odd": arm})
    with pytest.raises(ConfigError) as error:
        training_settings(given, "odd", "stdlib", 0)
    assert complaint in str(error.value)


def test_too_few_examples_for_a_sample_are_refused(tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"text": str(n)}) + "\n" for n in range(5)))
    task = TaskConfig(data=str(tmp_path / "few.jsonl"), metric="held-out", examples=6)
    with pytest.raises(DataError, match=r"task 'few': .* has 5 examples, fewer than the 6"):
        arm_specs(config(tmp_path, tasks={"few": task}))


def test_tokens_per_step_count_accumulated_rows() -> None:
    settings = {"model": "embedded", "data": "stdlib", "batch_size": 2, "gradient_accumulation": 3, "max_length": 100}
    assert tokens_per_step(settings) == 600


def test_a_spec_survives_json(tmp_path: Path) -> None:
    arms = {"next-token": {"objective": "next-token"}, "warmed": {"warm_up": {"max_steps": 3}, "num_heads": 1}}
    for spec in arm_specs(config(tmp_path, arms=arms)):
        assert ArmSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
