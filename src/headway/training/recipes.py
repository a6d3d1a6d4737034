"""What is known to work for each head family: the settings of a training run that nobody chose.

Values are those of the papers, or of the authors' own training code where papers are silent; sources are named. They come from
models of billions of parameters: small models bear larger learning rates. `parallel` and `sequential` are trained by the settings
that Headway's own figures were measured with.
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
    """Fields are named as in `HeadsTrainConfig` and `FinetuneConfig`; defaults are Headway's own.

    feature_weight: of the distance of heads' states from the trunk's later ones, beside their other loss.
    own_samples: whether the source trained on what the trunk itself writes (`headway heads distill`).
    total_weight, weight_schedule: of trained heads that go on learning beside their trunk. Published values exist for Medusa-2
        alone (axolotl fork of its authors: 0.2), other families take them over.
    fresh_total_weight, fresh_weight_schedule: of heads that start beside their trunk (0.01 with a sine ramp there).
    """

    source: str
    num_heads: int = 5
    objective: Literal["multi-token", "distillation"] = "multi-token"
    head_weights: Literal["constant", "medusa", "beta"] = "constant"
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
OF_HEADS = (
    *("objective", "head_weights", "beta", "feature_weight", "learning_rate", "lr_scheduler", "warmup_ratio"),
    *("weight_decay", "beta2", "max_grad_norm"),
)
OF_BOTH = ("head_weights", "beta", "feature_weight", "total_weight", "weight_schedule")


def recipe_of(name: str | None, family: str | None) -> Recipe:
    """The recipe of that name, or else of the family. Raises ConfigError for a name that there is not."""
    if name is not None and name not in RECIPES:
        raise ConfigError(f"There is no recipe {name!r}{nearest(name, RECIPES) or '; there are: ' + ', '.join(RECIPES) + '.'}")
    # a family that there is not is refused where heads are made
    return RECIPES.get(name or family or "parallel", RECIPES["parallel"])


def for_heads(config: HeadsTrainConfig, family: str) -> HeadsTrainConfig:
    """Settings with what was not given filled in, for heads of that family on a frozen trunk."""
    recipe = dataclasses.asdict(recipe_of(config.recipe, family))
    return _filled(config, {name: recipe[name] for name in OF_HEADS})


def for_finetuning(config: FinetuneConfig, family: str | None, fresh: bool) -> FinetuneConfig:
    """Settings with what was not given filled in, for heads beside their trunk; `fresh`: heads that have learnt nothing yet."""
    recipe = dataclasses.asdict(recipe_of(config.recipe, family))
    if fresh:
        recipe |= {"total_weight": recipe["fresh_total_weight"], "weight_schedule": recipe["fresh_weight_schedule"]}
    return _filled(config, {name: recipe[name] for name in OF_BOTH})


def _filled(config: C, values: dict[str, Any]) -> C:
    return dataclasses.replace(config, **{name: value for name, value in values.items() if getattr(config, name) is None})
