"""Specs of a comparison of families: shared settings, own settings, and refused settings."""

import json
from pathlib import Path
from typing import Any

import pytest

import headway.config
from headway.errors import ConfigError
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.specs import ALONE, FamilySpec, entries, family_specs
from headway.heads import FAMILIES


def config(**changes: Any) -> HeadsCompareConfig:
    return HeadsCompareConfig(**{"output_dir": Path("out"), "data": "stdlib", "validation": "word-problems", **changes})


def trained(config: HeadsCompareConfig) -> list[dict[str, Any]]:
    return [spec.training for spec in family_specs(config) if spec.training is not None]


def test_all_families_take_part_by_default() -> None:
    assert [entry.label for entry in entries(config())] == list(FAMILIES)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", ["embedded", "code"])
def test_the_example_files_are_valid(name: str, joint: bool) -> None:
    file = Path(__file__).parents[3] / f"examples/families/{name}.yaml"
    given = ["--config", str(file), *(["--joint"] if joint else [])]
    config = headway.config.load(HeadsCompareConfig, overrides=given, prog="headway heads compare", about="")
    runs = [spec.training for spec in family_specs(config) if spec.training and "family" in spec.training]
    assert {run["family"] for run in runs} <= set(FAMILIES) and len(runs) == len(config.families)


def test_runs_of_a_seed_differ_in_the_family_and_its_own_settings_alone() -> None:
    plus = {"family": "hydra", "label": "hydra++", "options": {"layers": 4, "prefix": True}, "max_grad_norm": 0.5}
    specs = family_specs(config(families=["medusa", plus], seeds=2, settings={"weight_decay": 0.0}))
    trunk, *runs = specs
    assert trunk.training is None and [(run.label, run.seed) for run in runs] == [
        ("medusa", 0),
        ("hydra++", 0),
        ("medusa", 1),
        ("hydra++", 1),
    ]
    first, second = (dict(run.training or {}) for run in runs[:2])
    assert second.pop("options") == {"layers": 4, "prefix": True} and second.pop("max_grad_norm") == 0.5
    assert (first.pop("family"), second.pop("family")) == ("medusa", "hydra")
    assert first == second and first["weight_decay"] == 0.0


def test_the_training_command_decides_settings_that_nobody_gave() -> None:
    training = trained(config(families=["medusa"]))[0]
    assert not {"learning_rate", "objective", "head_weights", "lr_scheduler", "weight_decay"} & set(training)
    given = trained(config(families=["medusa"], learning_rate=0.01))[0]
    assert given["learning_rate"] == 0.01


def test_labels_that_differ_in_punctuation_have_different_folders() -> None:
    specs = family_specs(config(families=[{"family": "hydra", "label": label} for label in ("a+b", "a b", "a/b")]))
    names = {spec.name for spec in specs}
    assert len(names) == 4 and not any(set(name) & set("/ +") for name in names)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"families": ["medua"]}, "did you mean 'medusa'"),
        ({"families": [{"options": {}}]}, "no head family None"),
        ({"families": ["hydra", "hydra"]}, "two are called 'hydra'"),
        ({"families": [{"family": "hydra", "seed": 3}]}, "families, hydra: the comparison sets seed"),
        ({"settings": {"max_steps": 3}}, "the comparison sets max_steps"),
        ({"families": [{"family": "hydra", "head_weight": "beta"}]}, "families, hydra: unknown key 'head_weight'"),
        ({"settings": {"total_weight": 1.0}}, "unknown key 'total_weight'"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        family_specs(config(**changes))
    assert complaint in str(error.value)


def test_joint_training_takes_settings_of_finetuning() -> None:
    training = trained(config(families=["medusa"], joint=True, settings={"total_weight": 0.3}))[1]
    assert training["total_weight"] == 0.3


def test_joint_training_includes_a_run_without_heads_of_equal_length() -> None:
    specs = family_specs(config(families=["medusa"], joint=True, seeds=2, settings={"weight_decay": 0.0}))
    assert [spec.label for spec in specs] == ["trunk", ALONE, "medusa", ALONE, "medusa"]
    alone, medusa = (dict(spec.training or {}) for spec in specs[1:3])
    assert (alone.pop("num_heads"), alone.pop("objective")) == (0, "next-token")
    assert (medusa.pop("num_heads"), medusa.pop("family")) == (4, "medusa") and alone == medusa


@pytest.mark.parametrize("changes", [{"seeds": 0}, {"max_seconds": 0.0}, {"temperatures": []}, {"temperatures": [-1.0]}])
def test_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config(**changes)


def test_a_spec_survives_json() -> None:
    for spec in family_specs(config(families=["medusa"], joint=True, temperatures=[0.0, 0.7])):
        assert FamilySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
