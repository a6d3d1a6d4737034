"""Specs of a comparison of families: the untrained trunk, and a spec per family and seed."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import headway.config
from headway.config import nearest
from headway.errors import ConfigError
from headway.evaluation.results import as_json
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.runner import folder_name
from headway.heads import FAMILIES
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

TRUNK = "trunk"
ALONE = "next-token alone"  # with --joint: training without heads
# settings that the comparison decides, or that no family uses
RESERVED = ("output_dir", "data", "model", "heads", "seed", "max_steps", "epochs", "validation", "resume", "quiet")


@dataclass(frozen=True)
class Entry:
    """A family with a label and with settings of the training command."""

    label: str
    family: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class MeasurementSettings:
    """Settings of the measurements after training; fields of HeadsCompareConfig."""

    validation: str
    test_examples: int
    max_length: int
    prompts: int
    prompt_tokens: int
    max_new_tokens: int
    tree_nodes: int
    repeats: int


@dataclass(frozen=True)
class FamilySpec:
    """Spec of a run of a family.

    Args:
        training: settings of the training command without output_dir, or None for the untrained trunk.
        joint: the trunk is trained too.
        timing: measure the seconds of a step only.
    """

    label: str
    seed: int
    model: str
    joint: bool
    threads: int
    temperatures: list[float]
    measured: MeasurementSettings
    training: dict[str, Any] | None
    timing: bool = False

    @property
    def name(self) -> str:
        """Folder name."""
        return folder_name(self.label, self.seed)

    def to_json(self) -> dict[str, Any]:
        return dict(as_json(self))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FamilySpec":
        return cls(**{**values, "measured": MeasurementSettings(**values["measured"])})


def entries(config: HeadsCompareConfig) -> list[Entry]:
    """Families of the comparison. Raises ConfigError for an unknown family, a reserved setting, or a repeated label."""
    families: list[Entry] = []
    for given in config.families or list(FAMILIES):
        settings: dict[str, Any] = {"family": given} if isinstance(given, str) else dict(given)
        family, label = settings.pop("family", None), settings.pop("label", None)
        if family not in FAMILIES:
            close = nearest(str(family), FAMILIES) or f"; there are: {', '.join(FAMILIES)}."
            raise ConfigError(f"There is no head family {family!r}{close}")
        if reserved := [name for name in RESERVED if name in (*settings, *config.settings)]:
            raise ConfigError(
                f"families, {label or family}: the comparison sets {reserved[0]}, with the same value for all families."
            )
        options = ", ".join(f"{name} {value}" for name, value in (settings.get("options") or {}).items())
        label = str(label or (f"{family} ({options})" if options else family))
        if label in (TRUNK, ALONE) or label in [entry.label for entry in families]:
            raise ConfigError(f"families: two are called {label!r}. Give each entry its own `label`.")
        families.append(Entry(label, family, settings))
    return families


def family_specs(config: HeadsCompareConfig, steps: dict[str, int] | None = None) -> list[FamilySpec]:
    """All runs: the untrained trunk, then seed by seed the families, with --joint after a run without heads.

    Args:
        steps: training steps by label; `max_steps` by default.
    Raises:
        ConfigError: settings of a family are contradictory. The message names the family.
    """
    measured = MeasurementSettings(**{item.name: getattr(config, item.name) for item in dataclasses.fields(MeasurementSettings)})
    shared: dict[str, Any] = {"model": config.model, "joint": config.joint, "threads": config.threads}
    shared |= {"temperatures": config.temperatures, "measured": measured}
    specs = [FamilySpec(TRUNK, config.seed, **shared, training=None)]
    for seed in range(config.seed, config.seed + config.seeds):
        if config.joint:
            training = _settings_without_heads(config, seed, (steps or {}).get(ALONE, config.max_steps))
            specs.append(FamilySpec(ALONE, seed, **shared, training=training))
        for entry in entries(config):
            training = training_settings(config, entry, seed, (steps or {}).get(entry.label, config.max_steps))
            specs.append(FamilySpec(entry.label, seed, **shared, training=training))
    return specs


def timing_specs(config: HeadsCompareConfig) -> list[FamilySpec]:
    """Runs that measure the seconds of a step, a run per label. Raises: as `family_specs`."""
    specs = family_specs(dataclasses.replace(config, seeds=1))
    return [dataclasses.replace(spec, timing=True) for spec in specs if spec.training is not None]


def training_settings(config: HeadsCompareConfig, entry: Entry, seed: int, steps: int) -> dict[str, Any]:
    """Settings of the training command without output_dir. Settings that nobody gave are left to the command."""
    own = {"num_heads": config.num_heads, **config.settings, **entry.settings, "family": entry.family}
    return _checked(config, own, seed, steps, entry.label)


def training_config(joint: bool) -> type[HeadsTrainConfig] | type[FinetuneConfig]:
    """Config of the training command."""
    return FinetuneConfig if joint else HeadsTrainConfig


def _settings_without_heads(config: HeadsCompareConfig, seed: int, steps: int) -> dict[str, Any]:
    own = {name: value for name, value in config.settings.items() if name not in ("objective", "options")}
    return _checked(config, {**own, "num_heads": 0, "objective": "next-token"}, seed, steps, ALONE)


def _checked(config: HeadsCompareConfig, own: dict[str, Any], seed: int, steps: int, label: str) -> dict[str, Any]:
    settings: dict[str, Any] = {name: getattr(config, name) for name in ("model", "data", "batch_size", "max_length", "limit")}
    if config.learning_rate is not None:
        settings["learning_rate"] = config.learning_rate
    settings |= {**own, "max_steps": steps, "seed": seed, "quiet": True}
    settings["save_steps"] = min(settings.get("save_steps", 100), steps)
    headway.config.build(training_config(config.joint), {**settings, "output_dir": "unused"}, f"families, {label}")
    return settings
