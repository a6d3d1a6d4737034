"""Specs of the runs of a comparison: a run per task, arm and seed, with all settings."""

import random
from dataclasses import dataclass, replace
from typing import Any

import headway.config
from headway.data import Example, load_examples, row_of_example
from headway.errors import ConfigError, DataError
from headway.evaluation.results import as_json
from headway.experiments.compare.configs import CompareConfig, TaskConfig
from headway.experiments.output import write_rows
from headway.experiments.runner import folder_name
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

UNTRAINED = "untrained"
RESERVED = ("output_dir", "data", "seed", "max_steps", "validation", "resume", "quiet")  # settings that the comparison decides


@dataclass(frozen=True)
class StepRates:
    """Seconds of a step of fine-tuning and of the warm-up, 0 without a warm-up."""

    tuning: float
    warming: float


@dataclass(frozen=True)
class ArmSpec:
    """Spec of a run of an arm on a task.

    Args:
        finetune: settings of `headway finetune` without output_dir, or None for the untrained model.
        warm_up: settings of `headway heads train` without output_dir, or None without a warm-up.
        points: steps after which the model is scored.
        timing: measure StepRates only.
    """

    task: str
    arm: str
    seed: int
    model: str
    scored: TaskConfig
    finetune: dict[str, Any] | None
    warm_up: dict[str, Any] | None
    points: list[int]
    point_examples: int
    threads: int
    timing: bool = False

    @property
    def name(self) -> str:
        """Folder name."""
        return folder_name(f"{self.task}/{self.arm}", self.seed)

    @property
    def steps(self) -> int:
        return self.finetune["max_steps"] if self.finetune is not None else 0

    def to_json(self) -> dict[str, Any]:
        return dict(as_json(self))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ArmSpec":
        return cls(**{**values, "scored": headway.config.build(TaskConfig, values["scored"], "task")})


def arm_specs(config: CompareConfig, rates: dict[str, StepRates] | None = None) -> list[ArmSpec]:
    """All runs: untrained models first, then seed by seed. The first results are pairs.

    Args:
        rates: by "task/arm"; needed for a budget in seconds.
    Raises:
        ConfigError: settings of an arm are contradictory.
        DataError: the data of a task cannot be read.
    """
    specs: list[ArmSpec] = []
    shared: dict[str, Any] = {"point_examples": config.point_examples, "threads": config.threads}
    for name, task in config.tasks.items():
        for model in dict.fromkeys(model_of(config, arm) for arm in config.arms):
            specs.append(ArmSpec(name, f"{UNTRAINED} {model}", 0, model, task, None, None, [], **shared))
    pools = {name: _pool(name, task) for name, task in config.tasks.items()}
    for seed in range(config.seed, config.seed + config.seeds):
        for name, task in config.tasks.items():
            data = _sample(config, name, task, pools[name], seed)
            for arm in config.arms:
                finetune, warm_up = training_settings(config, arm, data, seed)
                steps = _steps(config, arm, finetune, warm_up, (rates or {}).get(f"{name}/{arm}", StepRates(1.0, 1.0)))
                finetune["max_steps"] = steps
                finetune["save_steps"] = min(finetune.get("save_steps", 500), steps)
                points = sorted({max(1, round(steps * k / config.points)) for k in range(1, config.points + 1)})
                specs.append(ArmSpec(name, arm, seed, model_of(config, arm), task, finetune, warm_up, points, **shared))
    return specs


def timing_specs(config: CompareConfig) -> list[ArmSpec]:
    """Runs that measure the time of a step: the first seed of every task and arm. Raises: as `arm_specs`."""
    specs = arm_specs(replace(config, match="steps", budget=1))
    return [replace(spec, timing=True) for spec in specs if spec.finetune is not None and spec.seed == config.seed]


def training_settings(config: CompareConfig, arm: str, data: str, seed: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Settings of fine-tuning, and of the warm-up if the arm has one.

    Raises:
        ConfigError: a setting is unknown, out of range, or decided by the comparison. The message names the arm.
    """
    where = f"arm {arm!r}"
    settings = {**config.settings, **config.arms[arm]}
    warm_up = settings.pop("warm_up", None)
    if reserved := [name for name in RESERVED if name in settings]:
        raise ConfigError(f"{where}: the comparison sets {reserved[0]}, with the same value for all arms.")
    model = model_of(config, arm)
    finetune = {**settings, "model": model, "data": data, "seed": seed, "quiet": True}
    headway.config.build(FinetuneConfig, {**finetune, "output_dir": "unused"}, where)
    if warm_up is None:
        return finetune, None
    if not isinstance(warm_up, dict) or "max_steps" not in warm_up:
        raise ConfigError(f"{where}: warm_up needs settings of `headway heads train`, with max_steps among the settings.")
    shared = {name: settings[name] for name in ("batch_size", "max_length", "family", "num_heads", "options") if name in settings}
    warm_up = {**shared, **warm_up, "model": model, "data": data, "seed": seed, "quiet": True}
    headway.config.build(HeadsTrainConfig, {**warm_up, "output_dir": "unused"}, f"{where}, warm_up")
    for name in ("family", "num_heads", "options"):  # fine-tuning loads the heads of the warm-up
        finetune.pop(name, None)
    return finetune, warm_up


def model_of(config: CompareConfig, arm: str) -> str:
    """Model that an arm starts from."""
    name = config.arms[arm].get("model", config.model)
    return config.models.get(name, name)


def baseline_of(config: CompareConfig, arm: str) -> str | None:
    """Baseline with the model of the arm, or None if the arm is a baseline.

    Raises:
        ConfigError: the model has no baseline, or several.
    """
    if arm in config.baseline:
        return None
    baselines = [name for name in config.baseline if model_of(config, name) == model_of(config, arm)]
    if len(baselines) != 1:
        raise ConfigError(
            f"arm {arm!r} starts from {model_of(config, arm)}, of which {len(baselines)} baselines are named, not one."
        )
    return baselines[0]


def tokens_per_step(settings: dict[str, Any], kind: type = FinetuneConfig) -> int:
    """Tokens of text in an optimiser step with full rows."""
    built: Any = headway.config.build(kind, {**settings, "output_dir": "unused"}, "settings")
    return int(built.batch_size * built.gradient_accumulation * built.max_length)


def _steps(config: CompareConfig, arm: str, finetune: dict[str, Any], warm_up: dict[str, Any] | None, rates: StepRates) -> int:
    """Steps of fine-tuning in the budget. The warm-up counts towards budgets in tokens and seconds."""
    if config.match == "steps":
        return max(1, int(config.budget))
    if config.match == "tokens":
        spent = warm_up["max_steps"] * tokens_per_step(warm_up, HeadsTrainConfig) if warm_up else 0
        steps = (config.budget - spent) / tokens_per_step(finetune)
    else:
        spent = warm_up["max_steps"] * rates.warming if warm_up else 0.0
        steps = (config.budget - spent) / rates.tuning
    if steps < 1:
        raise ConfigError(f"arm {arm!r}: a budget of {config.budget:g} {config.match} leaves no step of fine-tuning.")
    return int(steps)


def _pool(name: str, task: TaskConfig) -> list[Example]:
    """Examples that seeds sample from; empty if all seeds learn from all examples."""
    if task.examples is None:
        return []
    generated = task.data.partition(":")[0] == "word-problems"
    pool = load_examples(task.data, "train", limit=2 * task.examples if generated else None)
    if len(pool) < task.examples:
        raise DataError(f"task {name!r}: {task.data} has {len(pool)} examples, fewer than the {task.examples} asked for.")
    return pool


def _sample(config: CompareConfig, name: str, task: TaskConfig, pool: list[Example], seed: int) -> str:
    """Data source of all arms of a seed: the source of the task, or a file with a random sample."""
    if task.examples is None:
        return task.data
    path = config.output_dir / "data" / f"{name}-{seed}.jsonl"
    write_rows(map(row_of_example, random.Random(seed).sample(pool, task.examples)), path)
    return str(path)
