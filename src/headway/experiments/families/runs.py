"""From the settings of a comparison of families to its runs: every family and seed, each with all it needs to know."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import headway.config
from headway.config import nearest
from headway.errors import ConfigError
from headway.experiments.compare.runs import folder_of
from headway.experiments.families.configs import HeadsCompareConfig
from headway.heads import FAMILIES
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

TRUNK = "trunk"
ALONE = "next-token alone"  # where the trunk learns too: what it learns without heads
OWN = (
    "output_dir",
    "data",
    "model",
    "heads",
    "seed",
    "max_steps",
    "epochs",
    "validation",
    "resume",
    "quiet",
)  # alike for all, or unused
MEASURED = ("validation", "test_examples", "max_length", "prompts", "prompt_tokens", "max_new_tokens", "tree_nodes", "repeats")


@dataclass(frozen=True)
class Entry:
    """A family as it takes part. `settings`: of the training verb, its own ones alone."""

    label: str
    family: str
    settings: dict[str, Any]


def entries(config: HeadsCompareConfig) -> list[Entry]:
    """Who takes part. Raises ConfigError for a family that there is not, and for two of one name."""
    found: list[Entry] = []
    for given in config.families or list(FAMILIES):
        settings: dict[str, Any] = {"family": given} if isinstance(given, str) else dict(given)
        family, label = settings.pop("family", None), settings.pop("label", None)
        if family not in FAMILIES:
            close = nearest(str(family), FAMILIES) or f"; there are: {', '.join(FAMILIES)}."
            raise ConfigError(f"There is no head family {family!r}{close}")
        if decided := [name for name in OWN if name in (*settings, *config.settings)]:
            raise ConfigError(f"families, {label or family}: {decided[0]} is set by the comparison itself, for all alike.")
        options = ", ".join(f"{name} {value}" for name, value in (settings.get("options") or {}).items())
        label = str(label or (f"{family} ({options})" if options else family))
        if label in (TRUNK, ALONE) or label in [one.label for one in found]:
            raise ConfigError(f"families: two are called {label!r}. Give each a `label` of its own.")
        found.append(Entry(label, family, settings))
    return found


def specs_of(config: HeadsCompareConfig, steps: dict[str, int] | None = None) -> dict[str, dict[str, Any]]:
    """What each run's process reads, by the name of its folder: the trunk as it is, then seed by seed every family.

    Where the trunk learns too, each seed begins with the same training without heads.

    Args: steps: by label, where they are not `max_steps` for all.
    Raises: ConfigError for settings that cannot be, naming the family.
    """
    measured = {name: getattr(config, name) for name in MEASURED}
    shared = {"model": config.model, "joint": config.joint, "threads": config.threads, "temperatures": config.temperatures}
    shared["measured"] = measured
    specs: dict[str, dict[str, Any]] = {folder_of(TRUNK, config.seed): {"label": TRUNK, "seed": config.seed, **shared}}
    for seed in range(config.seed, config.seed + config.seeds):
        if config.joint:
            training = _alone(config, seed, (steps or {}).get(ALONE, config.max_steps))
            specs[folder_of(ALONE, seed)] = {"label": ALONE, "seed": seed, **shared, "training": training}
        for entry in entries(config):
            number = (steps or {}).get(entry.label, config.max_steps)
            training = settings_of(config, entry, seed, number)
            specs[folder_of(entry.label, seed)] = {"label": entry.label, "seed": seed, **shared, "training": training}
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(specs, default=str))
    return plain


def settings_of(config: HeadsCompareConfig, entry: Entry, seed: int, steps: int) -> dict[str, Any]:
    """Settings of the training verb without `out`. What nobody gave is left to the verb, which knows what suits the family."""
    own = {"num_heads": config.num_heads, **config.settings, **entry.settings, "family": entry.family}
    return _checked(config, own, seed, steps, entry.label)


def _alone(config: HeadsCompareConfig, seed: int, steps: int) -> dict[str, Any]:
    of_heads = ("objective", "options")
    own = {name: value for name, value in config.settings.items() if name not in of_heads}
    return _checked(config, {**own, "num_heads": 0, "objective": "next-token"}, seed, steps, ALONE)


def _checked(config: HeadsCompareConfig, own: dict[str, Any], seed: int, steps: int, label: str) -> dict[str, Any]:
    given: dict[str, Any] = {name: getattr(config, name) for name in ("model", "data", "batch_size", "max_length", "limit")}
    if config.learning_rate is not None:
        given["learning_rate"] = config.learning_rate
    given |= {**own, "max_steps": steps, "seed": seed, "quiet": True}
    given["save_steps"] = min(given.get("save_steps", 100), steps)
    headway.config.build(kind(config.joint), {**given, "output_dir": "unused"}, f"families, {label}")
    return given


def kind(joint: bool) -> type[HeadsTrainConfig] | type[FinetuneConfig]:
    """Settings of the verb that trains."""
    return FinetuneConfig if joint else HeadsTrainConfig


def rates_of(config: HeadsCompareConfig) -> dict[str, dict[str, Any]]:
    """What the processes read that time a step of each family, by the name of their folders."""
    one = dataclasses.replace(config, seeds=1)
    return {name: {**spec, "rate": True} for name, spec in specs_of(one).items() if "training" in spec}
