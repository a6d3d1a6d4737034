"""Recipes: published settings for head families, in the place of settings that are not given.

Values come from the papers, or from the authors' training code where a paper is silent. `source` names both. The models there have
billions of parameters; small models take larger learning rates. Recipes of `parallel` and `sequential` are the settings of
Headway's own measurements.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from headway.config import nearest
from headway.errors import ConfigError
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

C = TypeVar("C", HeadsTrainConfig, FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings named as in `HeadsTrainConfig` and `FinetuneConfig`. Defaults are Headway's own.

    Args:
        source: paper and file of the values.
        own_samples: the source trained on samples of the trunk itself (`headway heads distill`).
        total_weight: factor of the losses of pretrained heads beside their trunk. Only Medusa-2 publishes a value (0.2, in the
            axolotl fork of its authors). All families take 0.2 over.
        weight_schedule: course of that factor.
        fresh_total_weight: factor for randomly initialised heads beside their trunk (Medusa-2: 0.01 with a sine ramp).
        fresh_weight_schedule: course of that factor.
    """

    source: str
    num_heads: int = 5
    objective: Literal["multi-token", "distillation"] = "multi-token"
    head_weights: str = "constant"
    beta: float = 0.6
    learning_rate: float = 5e-4
    lr_scheduler: Literal["cosine", "constant", "linear"] = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.01
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    feature_weight: float = 0.0
    own_samples: bool = True
    total_weight: float = 0.2
    weight_schedule: Literal["constant", "sine"] = "constant"
    fresh_total_weight: float = 0.01
    fresh_weight_schedule: Literal["constant", "sine"] = "sine"


RECIPES: dict[str, Recipe] = {
    "parallel": Recipe(
        source="Gloeckle et al. 2404.19737: equation 2: all offsets alike",
        num_heads=2,
        total_weight=1.0,
        fresh_total_weight=1.0,
        fresh_weight_schedule="constant",
    ),
    "sequential": Recipe(
        source="DeepSeek-V3 2412.19437, section 2.2: all depths alike",
        num_heads=2,
        total_weight=1.0,
        fresh_total_weight=1.0,
        fresh_weight_schedule="constant",
    ),
    "fastmtp": Recipe(  # sequential heads that share a layer
        source="FastMTP 2509.18362, sft.sh: trained MTP layer shared by all depths, {shared: true}",
        num_heads=3,
        head_weights="beta",
        learning_rate=5e-5,
        warmup_ratio=0.05,
        beta2=0.95,
    ),
    "medusa": Recipe(
        source="Medusa-1 2401.10774, README: 5 heads at most, 0.8^k; Medusa-2 beside the trunk",
        head_weights="medusa",
        learning_rate=1e-3,
        warmup_ratio=0.1,
        weight_decay=0.0,
    ),
    "hydra": Recipe(
        source="Hydra++ 2402.05109, README: the trunk's distribution alone",
        num_heads=4,
        objective="distillation",
        weight_decay=0.1,
        own_samples=False,
    ),
    "eagle": Recipe(
        source="EAGLE 2401.15077, train/main.py; own samples: 2.88x against 2.78x",
        objective="distillation",
        learning_rate=3e-5,
        lr_scheduler="linear",
        warmup_ratio=0.0025,
        beta2=0.95,
        max_grad_norm=0.5,
        feature_weight=10.0,  # 1 beside a cross-entropy of 0.1
        own_samples=False,
    ),
    "eagle3": Recipe(
        source="EAGLE-3 2503.01840, traineagle3: training-time test, 0.8^k",
        objective="distillation",
        head_weights="medusa",
        learning_rate=5e-5,
        lr_scheduler="linear",
        warmup_ratio=0.015,
        weight_decay=0.0,
        beta2=0.95,
        max_grad_norm=0.5,
    ),
    "redrafter": Recipe(
        source="ReDrafter 2403.09919, train.sh: labels drawn from the trunk, +10% speed",
        learning_rate=1e-3,
        warmup_ratio=0.1,
        weight_decay=0.0,
    ),
    "gated-lora": Recipe(
        source="Samragh et al. 2507.11851: 8 masks, flat rate after 5,000 of 50,000 steps",
        num_heads=8,
        learning_rate=2e-4,
        lr_scheduler="constant",
        warmup_ratio=0.1,
        own_samples=False,
    ),
}


def recipe_of(name: str | None, family: str | None) -> Recipe:
    """The recipe of that name, or else the recipe of the family; without a family that of parallel heads.

    Raises:
        ConfigError: the recipe is unknown, or the family has no recipe.
    """
    wanted = name or family or "parallel"
    if wanted not in RECIPES:
        missing = f"There is no recipe {wanted!r}" if name else f"There is no recipe for heads of the family {wanted!r}"
        raise ConfigError(f"{missing}{nearest(wanted, RECIPES) or '; there are: ' + ', '.join(RECIPES) + '.'}")
    return RECIPES[wanted]


def for_heads(config: HeadsTrainConfig, family: str) -> HeadsTrainConfig:
    """Settings filled in by the recipe, for heads of that family on a frozen trunk."""
    return _filled(config, dataclasses.asdict(recipe_of(config.recipe, family)))


def for_finetuning(config: FinetuneConfig, family: str | None, fresh: bool) -> FinetuneConfig:
    """Settings filled in by the recipe, for heads beside their trunk; `fresh`: the heads are randomly initialised."""
    recipe = dataclasses.asdict(recipe_of(config.recipe, family))
    if fresh:
        recipe |= {"total_weight": recipe["fresh_total_weight"], "weight_schedule": recipe["fresh_weight_schedule"]}
    return _filled(config, recipe)


def _filled(config: C, recipe: dict[str, Any]) -> C:
    missing = {name: recipe[name] for name in config.FILLED_IN if getattr(config, name) is None}
    return dataclasses.replace(config, **missing)
