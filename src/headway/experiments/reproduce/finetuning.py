"""Fine-tuning towards several tokens (Gloeckle et al. 2024, table S6), with random and with pretrained heads.

The paper fine-tuned Llama 2 with new heads at full weight, and explains the failure: "the new loss changes the initialization too
brutally". The arms here remove the two suspects, random heads and full weight, one by one and together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import TrainerCallback, set_seed

from headway import model_path
from headway.data import Example, PromptCompletion, load_examples, word_problems
from headway.errors import ConfigError
from headway.evaluation.tasks.exact_match import exact_match
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.output import write_rows
from headway.experiments.reproduce.configs import FinetuningConfig
from headway.experiments.reproduce.models import randomise_heads
from headway.experiments.reproduce.scratch import Learnt, Metrics
from headway.experiments.reproduce.specs import ReproductionSpec
from headway.experiments.timing import Point, StepTimer
from headway.heads import CONFIG_FILE
from headway.model import HeadwayModel, load_model_and_tokenizer
from headway.training import finetune
from headway.training.configs import FinetuneConfig

BASELINE = "next-token"


@dataclass(frozen=True)
class Arm:
    """Heads and loss weight of an arm."""

    heads: Literal["pretrained", "random"]
    small_weight: bool  # rises to a small weight over the run; else 1 throughout


ARMS = {
    BASELINE: None,
    "random heads, full weight": Arm("random", small_weight=False),
    "random heads, small weight": Arm("random", small_weight=True),
    "pretrained heads, full weight": Arm("pretrained", small_weight=False),
    "pretrained heads, small weight": Arm("pretrained", small_weight=True),
}


def check(config: FinetuningConfig) -> None:
    """Raise ConfigError if there are no pretrained heads."""
    if config.heads is None and not (Path(model_path(config.model or "")) / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{config.model} brings no heads to compare random heads with: train heads with `headway heads train --num-heads "
            f"{config.num_heads}`, and give their folder with --heads."
        )


def learn(config: FinetuningConfig, spec: ReproductionSpec, folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> Learnt:
    """Fine-tune an arm and score the model. Raises: as `finetune`."""
    assert config.model is not None and config.steps and config.batch_size and config.learning_rate and config.max_length
    arm = ARMS[spec.arm]
    start, heads = config.model, config.heads
    if arm is not None and arm.heads == "random":
        start, heads = str(_with_random_heads(config, spec.seed, folder / "start")), None
    small = arm is not None and arm.small_weight
    timer = StepTimer(folder / "seconds.json")
    finetune(
        FinetuneConfig(
            model=start,
            heads=heads,
            num_heads=config.num_heads,
            data=_data(config, spec.seed, folder),
            output_dir=folder / "model",
            objective="next-token" if arm is None else "multi-token",
            total_weight=config.small_weight if small else 1.0,
            weight_schedule="sine" if small else "constant",
            max_steps=config.steps,
            batch_size=config.batch_size // config.gradient_accumulation,
            gradient_accumulation=config.gradient_accumulation,
            bf16=config.bf16,
            max_length=config.max_length,
            learning_rate=config.learning_rate,
            heads_learning_rate=config.learning_rate,
            seed=spec.seed,
            save_steps=config.steps,
            log_steps=max(1, config.steps // 20),
            quiet=True,
        ),
        [timer, *callbacks],
    )
    history = json.loads((folder / "model" / "history.json").read_text(encoding="utf-8"))
    curve = [
        Point(entry["step"], {"training loss": entry["loss_1"]}, timer.seconds_until(entry["step"]))
        for entry in history
        if "loss_1" in entry
    ]
    return Learnt(curve, score(config, str(folder / "model")))


def score(config: FinetuningConfig, folder: str) -> Metrics:
    """Held-out next-token loss and, if the data has prompts, the share of problems solved."""
    assert config.test_examples is not None and config.max_length is not None
    model, tokenizer = load_model_and_tokenizer(folder)
    name, _, level = config.data.partition(":")
    if name == "word-problems":
        rows = word_problems("test", config.test_examples, int(level or 1), seed=1)
        test: list[Example] = [PromptCompletion(row["prompt"], row["completion"]) for row in rows]
    else:
        test = load_examples(config.data, "test", config.test_examples)
    metrics = {"loss": held_out_on(model, tokenizer, test, config.max_length).losses[0]}
    problems = [example for example in test if isinstance(example, PromptCompletion)]
    if len(problems) == len(test):
        matched = exact_match(model, tokenizer, problems, max_new_tokens=64, batch_size=50, quiet=True)
        metrics |= {"exact match": matched.strict, "tokens per forward": matched.stats.tokens_per_forward}
    return metrics


def _data(config: FinetuningConfig, seed: int, folder: Path) -> str:
    """Data source of a seed: a file of generated problems, equal for all arms, or the configured source."""
    name, _, level = config.data.partition(":")
    if name != "word-problems":
        return config.data
    assert config.examples is not None
    write_rows(word_problems("train", config.examples, int(level or 1), seed=seed), folder / "train.jsonl")
    return str(folder / "train.jsonl")


def _with_random_heads(config: FinetuningConfig, seed: int, folder: Path) -> Path:
    assert config.model is not None
    model, tokenizer = load_model_and_tokenizer(config.model)
    model = HeadwayModel.from_trunk(model.trunk, "parallel", config.num_heads)
    set_seed(seed)
    randomise_heads(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
