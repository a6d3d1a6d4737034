"""What nobody chose comes from a recipe, what somebody chose stays, and what was trained by default before is trained so now."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.cli import main
from headway.errors import ConfigError
from headway.heads import FAMILIES
from headway.model import HeadwayModel
from headway.objectives import MultiToken
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig, HeadsTrainConfig
from headway.training.recipes import RECIPES, for_finetuning, for_heads

QUICK = {"max_length": 48, "batch_size": 4, "quiet": True, "max_steps": 1}


class Asked(Exception):
    """Raised in place of training, with what would have been trained."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: Any, model: HeadwayModel, objective: MultiToken, *rest: Any) -> None:
        raise Asked(config, model, objective)

    monkeypatch.setattr("headway.training.stages.heads.run", run)
    monkeypatch.setattr("headway.training.stages.finetune.run", run)


def test_every_family_has_a_recipe() -> None:
    assert set(FAMILIES) <= set(RECIPES)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_trained_by_its_own_recipe_where_only_its_name_is_given(
    model: str, data: str, out: Path, family: str, asked: None
) -> None:
    recipe = RECIPES[family]
    with pytest.raises(Asked) as found:
        train_heads(HeadsTrainConfig(model=model, data=data, output_dir=out, family=family, **QUICK))
    config, trained, objective = found.value.args
    assert {name: getattr(config, name) for name in HeadsTrainConfig.FILLED_IN} == {
        name: getattr(recipe, name) for name in HeadsTrainConfig.FILLED_IN
    }
    assert (trained.heads.config.family, trained.count) == (family, recipe.num_heads)
    assert objective.distill == (recipe.objective == "distillation") and not objective.next_token
    with pytest.raises(Asked) as found:
        finetune(FinetuneConfig(model=model, data=data, output_dir=out, family=family, **QUICK))
    config, trained, objective = found.value.args
    assert trained.count == recipe.num_heads and config.heads_lr == 4 * config.learning_rate
    assert (objective.total_weight, objective.schedule) == (recipe.fresh_total_weight, recipe.fresh_weight_schedule)


@pytest.mark.parametrize("family", ["parallel", "sequential"])
def test_the_first_two_families_are_trained_as_they_were_before_there_were_recipes(family: str) -> None:
    before = {"objective": "multi-token", "head_weights": "constant", "beta": 0.6, "learning_rate": 5e-4, "lr_scheduler": "cosine"}
    before |= {"warmup_ratio": 0.03, "weight_decay": 0.01, "beta2": 0.999, "max_grad_norm": 1.0, "feature_weight": 0.0}
    heads = for_heads(HeadsTrainConfig(model="embedded", data="stdlib", output_dir=Path("x"), family=family), family)
    assert {name: getattr(heads, name) for name in HeadsTrainConfig.FILLED_IN} == before and RECIPES[family].num_heads == 2
    for fresh in (False, True):
        tuned = for_finetuning(FinetuneConfig(model="embedded", data="stdlib", output_dir=Path("x")), family, fresh)
        assert (tuned.head_weights, tuned.beta, tuned.total_weight, tuned.weight_schedule) == ("constant", 0.6, 1.0, "constant")
        assert (tuned.learning_rate, tuned.heads_lr, tuned.objective) == (2e-5, 8e-5, "multi-token")


def test_a_recipe_fills_in_what_was_not_given_and_nothing_else(model: str, data: str, out: Path, asked: None) -> None:
    with pytest.raises(Asked) as found:
        train_heads(HeadsTrainConfig(model=model, data=data, output_dir=out, recipe="eagle3", max_grad_norm=2.0, **QUICK))
    config, trained, objective = found.value.args
    assert (config.learning_rate, config.lr_scheduler, config.beta2, config.max_grad_norm) == (5e-5, "linear", 0.95, 2.0)
    assert trained.count == 5 and (objective.distill, objective.head_weights) == (True, "medusa")
    with pytest.raises(Asked) as found:
        train_heads(
            HeadsTrainConfig(
                model=model, data=data, output_dir=out, recipe="fastmtp", num_heads=1, objective="distillation", **QUICK
            )
        )
    _, trained, objective = found.value.args
    assert (
        trained.count == 1
        and objective.distill
        and objective.weights(3, 0.0) == pytest.approx([0, 1 / 1.96, 0.6 / 1.96, 0.36 / 1.96])
    )


def test_fresh_heads_beside_a_trunk_start_from_nothing_and_trained_ones_weigh_a_fifth(
    model: str, data: str, out: Path, tmp_path: Path, asked: None
) -> None:
    HeadwayModel.from_trunk(model, count=2).heads.save_pretrained(tmp_path / "heads")
    settings = {"model": model, "data": data, "output_dir": out, "recipe": "medusa", **QUICK}
    with pytest.raises(Asked) as found:
        finetune(FinetuneConfig(family="parallel", **settings))
    fresh = found.value.args[2]
    assert fresh.weights(5, 0.0) == [1.0] + [0.0] * 5
    assert fresh.weights(2, 1.0) == pytest.approx([1.0, 0.01 * 0.8, 0.01 * 0.64])
    with pytest.raises(Asked) as found:
        finetune(FinetuneConfig(heads=str(tmp_path / "heads"), **settings))
    trained = found.value.args[2]
    assert trained.weights(2, 0.0) == trained.weights(2, 1.0) == pytest.approx([1.0, 0.2 * 0.8, 0.2 * 0.64])


def test_the_settings_that_are_kept_are_those_that_were_used_and_a_resumed_run_is_held_to_them(
    model: str, data: str, out: Path
) -> None:
    config = HeadsTrainConfig(model=model, data=data, output_dir=out, num_heads=1, **QUICK)
    train_heads(config)
    kept = yaml.safe_load((out / "config.headway.yaml").read_text(encoding="utf-8"))
    assert kept["learning_rate"] == 5e-4 and kept["objective"] == "multi-token"
    train_heads(dataclasses.replace(config, learning_rate=5e-4, head_weights="constant"))  # the same, said aloud
    with pytest.raises(ConfigError, match=r"learning_rate: 0.0005, not 0.001"):
        train_heads(dataclasses.replace(config, recipe="redrafter"))


def test_a_recipe_that_there_is_not_is_named_with_the_nearest(model: str, data: str, out: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe 'medussa'; did you mean 'medusa'"):
        train_heads(HeadsTrainConfig(model=model, data=data, output_dir=out, recipe="medussa", **QUICK))


def test_the_list_of_recipes_needs_no_other_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "train", "--list-recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and recipe.source in shown for name, recipe in RECIPES.items())


def test_a_family_without_a_recipe_is_refused_in_place_of_taking_another_recipe() -> None:
    config = HeadsTrainConfig(model="embedded", data="stdlib", output_dir=Path("x"))
    with pytest.raises(ConfigError, match=r"no recipe for heads of the family 'paralel'; did you mean 'parallel'\?"):
        for_heads(config, "paralel")
    with pytest.raises(ConfigError, match="no recipe for heads of the family 'zzz'; there are: parallel, sequential"):
        for_finetuning(FinetuneConfig(model="embedded", data="stdlib", output_dir=Path("x")), "zzz", fresh=True)
    assert for_heads(HeadsTrainConfig(model="m", data="d", output_dir=Path("x"), recipe="medusa"), "zzz").beta2 == 0.999


@pytest.mark.parametrize("name", ["learning_rate", "lr_scheduler", "max_grad_norm"])
def test_a_setting_that_no_recipe_fills_in_cannot_be_none(name: str) -> None:
    assert getattr(HeadsTrainConfig(model="m", data="d", output_dir=Path("x"), **{name: None}), name) is None
    with pytest.raises(ConfigError, match=f"{name} cannot be none"):
        FinetuneConfig(model="m", data="d", output_dir=Path("x"), **{name: None})
