"""From settings to runs: what all share, what a family brings along, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest

import headway.config
from headway.errors import ConfigError
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.runs import ALONE, entries, specs_of
from headway.heads import FAMILIES


def config(**changes: Any) -> HeadsCompareConfig:
    return HeadsCompareConfig(**{"output_dir": Path("out"), "data": "stdlib", "validation": "word-problems", **changes})


def test_without_names_all_families_that_there_are_take_part() -> None:
    assert [entry.label for entry in entries(config())] == list(FAMILIES)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", ["embedded", "code"])
def test_the_comparisons_that_the_documentation_reports_are_settings_that_can_be(name: str, joint: bool) -> None:
    file = Path(__file__).parents[3] / f"examples/families/{name}.yaml"
    given = ["--config", str(file), *(["--joint"] if joint else [])]
    config = headway.config.load(HeadsCompareConfig, overrides=given, prog="headway heads compare", about="")
    runs = [spec["training"] for spec in specs_of(config).values() if "family" in spec.get("training", {})]
    assert {run["family"] for run in runs} <= set(FAMILIES) and len(runs) == len(config.families)


def test_all_runs_of_a_seed_differ_in_family_and_its_own_settings_alone() -> None:
    plus = {"family": "hydra", "label": "hydra++", "options": {"layers": 4, "prefix": True}, "max_grad_norm": 0.5}
    specs = specs_of(config(families=["medusa", plus], seeds=2, settings={"weight_decay": 0.0}))
    trunk, *runs = specs.values()
    assert "training" not in trunk and [(run["label"], run["seed"]) for run in runs] == [
        ("medusa", 0),
        ("hydra++", 0),
        ("medusa", 1),
        ("hydra++", 1),
    ]
    first, second = (dict(run["training"]) for run in runs[:2])
    assert second.pop("options") == {"layers": 4, "prefix": True} and second.pop("max_grad_norm") == 0.5
    assert (first.pop("family"), second.pop("family")) == ("medusa", "hydra")
    assert first == second and first["weight_decay"] == 0.0


def test_settings_that_nobody_gave_are_left_to_the_family() -> None:
    training = list(specs_of(config(families=["medusa"])).values())[1]["training"]
    assert not {"learning_rate", "objective", "head_weights", "lr_scheduler", "weight_decay"} & set(training)
    given = list(specs_of(config(families=["medusa"], learning_rate=0.01)).values())[1]["training"]
    assert given["learning_rate"] == 0.01


def test_labels_that_differ_in_punctuation_alone_have_folders_of_their_own() -> None:
    found = specs_of(config(families=[{"family": "hydra", "label": label} for label in ("a+b", "a b", "a/b")]))
    assert len(found) == 4 and not any(set(name) & set("/ +") for name in found)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"families": ["medua"]}, "did you mean 'medusa'"),
        ({"families": [{"options": {}}]}, "no head family None"),
        ({"families": ["hydra", "hydra"]}, "two are called 'hydra'"),
        ({"families": [{"family": "hydra", "seed": 3}]}, "families, hydra: seed is set by the comparison itself"),
        ({"settings": {"max_steps": 3}}, "max_steps is set by the comparison itself"),
        ({"families": [{"family": "hydra", "head_weight": "beta"}]}, "families, hydra: unknown key 'head_weight'"),
        ({"settings": {"total_weight": 1.0}}, "unknown key 'total_weight'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        specs_of(config(**changes))
    assert complaint in str(error.value)


def test_a_learning_trunk_takes_settings_of_finetuning() -> None:
    training = list(specs_of(config(families=["medusa"], joint=True, settings={"total_weight": 0.3})).values())[2]["training"]
    assert training["total_weight"] == 0.3


def test_a_learning_trunk_also_learns_without_heads_for_as_long() -> None:
    found = list(specs_of(config(families=["medusa"], joint=True, seeds=2, settings={"weight_decay": 0.0})).values())
    assert [spec["label"] for spec in found] == ["trunk", ALONE, "medusa", ALONE, "medusa"]
    alone, medusa = (dict(spec["training"]) for spec in found[1:3])
    assert (alone.pop("num_heads"), alone.pop("objective")) == (0, "next-token")
    assert (medusa.pop("num_heads"), medusa.pop("family")) == (4, "medusa") and alone == medusa


@pytest.mark.parametrize("changes", [{"seeds": 0}, {"max_seconds": 0.0}, {"temperatures": []}, {"temperatures": [-1.0]}])
def test_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config(**changes)
