"""From a comparison's settings to its runs: every task, arm and seed, each with all it needs to know."""

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from typing import Any

import headway.config
from headway.data import Example, load_examples, row_of_example
from headway.errors import ConfigError, DataError
from headway.experiments.compare.configs import CompareConfig, TaskConfig
from headway.files import write_text
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

UNTRAINED = "untrained"
OWN = ("output_dir", "data", "seed", "max_steps", "validation", "resume", "quiet")  # what the comparison itself decides


@dataclass(frozen=True)
class Run:
    """One run. `finetune` and `warm_up` are settings of those verbs without `out`; None where that stage is left out."""

    task: str
    arm: str
    seed: int
    model: str
    scored: TaskConfig
    finetune: dict[str, Any] | None
    warm_up: dict[str, Any] | None
    points: list[int]  # steps after which the run is measured
    point_examples: int
    threads: int

    @property
    def name(self) -> str:
        return folder_of(f"{self.task}/{self.arm}", self.seed)

    @property
    def steps(self) -> int:
        return self.finetune["max_steps"] if self.finetune is not None else 0

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dict(json.loads(json.dumps(asdict(self), default=str)))


def folder_of(words: str, seed: int) -> str:
    """A folder's name that no two runs share."""
    plain = "".join(c if c.isalnum() or c in "-." else "-" for c in words).strip(".-")
    return f"{plain}-{hashlib.sha256(words.encode()).hexdigest()[:6]}-{seed}"


def runs_of(config: CompareConfig, rates: dict[str, dict[str, float]] | None = None) -> list[Run]:
    """All runs, seed by seed so that early results already are pairs; each model untrained first.

    Args:
        rates: by task/arm, seconds of a step of its `tuning` and `warming`; needed where runs are matched by seconds.
    Raises: ConfigError for settings that no arm can have; DataError for data that cannot be read.
    """
    found: list[Run] = []
    for name, task in config.tasks.items():
        for model in dict.fromkeys(model_of(config, arm) for arm in config.arms):
            found.append(Run(name, f"{UNTRAINED} {model}", 0, model, task, None, None, [], config.point_examples, config.threads))
    pools = {name: _pool(name, task) for name, task in config.tasks.items()}
    for seed in range(config.seed, config.seed + config.seeds):
        for name, task in config.tasks.items():
            data = _sample(config, name, task, pools[name], seed)
            for arm in config.arms:
                finetune, warm_up = settings_of(config, arm, data, seed)
                steps = _steps(config, arm, finetune, warm_up, (rates or {}).get(f"{name}/{arm}", {}))
                finetune["max_steps"] = steps
                finetune["save_steps"] = min(finetune.get("save_steps", 500), steps)
                points = sorted({max(1, round(steps * k / config.points)) for k in range(1, config.points + 1)})
                model = model_of(config, arm)
                found.append(Run(name, arm, seed, model, task, finetune, warm_up, points, config.point_examples, config.threads))
    return found


def settings_of(config: CompareConfig, arm: str, data: str, seed: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Settings of fine-tuning and of the warm-up before it, if there is one, checked.

    Raises: ConfigError that names the arm.
    """
    where = f"arm {arm!r}"
    given = {**config.settings, **config.arms[arm]}
    warm_up = given.pop("warm_up", None)
    if decided := [name for name in OWN if name in given]:
        raise ConfigError(f"{where}: {decided[0]} is set by the comparison itself, for all arms alike.")
    model = model_of(config, arm)
    finetune = {**given, "model": model, "data": data, "seed": seed, "quiet": True}
    headway.config.build(FinetuneConfig, {**finetune, "output_dir": "unused"}, where)
    if warm_up is None:
        return finetune, None
    if not isinstance(warm_up, dict) or "max_steps" not in warm_up:
        raise ConfigError(f"{where}: warm_up is a group of settings of `headway heads train`, max_steps among them.")
    shared = {name: given[name] for name in ("batch_size", "max_length", "family", "num_heads", "options") if name in given}
    warm_up = {**shared, **warm_up, "model": model, "data": data, "seed": seed, "quiet": True}
    headway.config.build(HeadsTrainConfig, {**warm_up, "output_dir": "unused"}, f"{where}, warm_up")
    for name in ("family", "num_heads", "options"):  # which heads there are is settled by then
        finetune.pop(name, None)
    return finetune, warm_up


def model_of(config: CompareConfig, arm: str) -> str:
    name = config.arms[arm].get("model", config.model)
    return config.models.get(name, name)


def baseline_of(config: CompareConfig, arm: str) -> str | None:
    """What the arm is compared with: the baseline of its model; None for a baseline itself.

    Raises: ConfigError where there is none, or more than one.
    """
    if arm in config.baseline:
        return None
    found = [name for name in config.baseline if model_of(config, name) == model_of(config, arm)]
    if len(found) != 1:
        raise ConfigError(f"arm {arm!r} starts from {model_of(config, arm)}, of which {len(found)} baselines are named, not one.")
    return found[0]


def tokens_a_step(settings: dict[str, Any], kind: type = FinetuneConfig) -> int:
    """Tokens of text in one optimiser step, where rows are full."""
    built: Any = headway.config.build(kind, {**settings, "output_dir": "unused"}, "settings")
    return int(built.batch_size * built.gradient_accumulation * built.max_length)


def _steps(
    config: CompareConfig, arm: str, finetune: dict[str, Any], warm_up: dict[str, Any] | None, rates: dict[str, float]
) -> int:
    """Steps of fine-tuning that the budget leaves; a warm-up is paid out of it, but for budgets in steps."""
    if config.match == "steps":
        return max(1, int(config.budget))
    if config.match == "tokens":
        spent = warm_up["max_steps"] * tokens_a_step(warm_up, HeadsTrainConfig) if warm_up else 0
        steps = (config.budget - spent) / tokens_a_step(finetune)
    else:
        spent = warm_up["max_steps"] * rates["warming"] if warm_up else 0.0
        steps = (config.budget - spent) / rates["tuning"]
    if steps < 1:
        raise ConfigError(f"arm {arm!r}: a budget of {config.budget:g} {config.match} leaves no step of fine-tuning.")
    return int(steps)


def _pool(name: str, task: TaskConfig) -> list[Example]:
    """What seeds draw their samples from; empty where all learn from all of it."""
    if task.examples is None:
        return []
    generated = task.data.partition(":")[0] == "word-problems"
    pool = load_examples(task.data, "train", limit=2 * task.examples if generated else None)
    if len(pool) < task.examples:
        raise DataError(f"task {name!r}: {task.data} has {len(pool)} examples, fewer than the {task.examples} asked for.")
    return pool


def _sample(config: CompareConfig, name: str, task: TaskConfig, pool: list[Example], seed: int) -> str:
    """The data that all arms of this seed learn from: the source itself, or a file with the seed's own sample."""
    if task.examples is None:
        return task.data
    chosen = random.Random(seed).sample(pool, task.examples)
    path = config.output_dir / "data" / f"{name}-{seed}.jsonl"
    text = "".join(json.dumps(row_of_example(example), ensure_ascii=False) + "\n" for example in chosen)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:  # rows are cached by the time of the file
        write_text(path, text)
    return str(path)
