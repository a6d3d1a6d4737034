"""Table S6: why does fine-tuning a pretrained model towards several tokens fail, and does it with heads trained in advance?

The paper fine-tuned Llama 2 with new heads at full weight and blames that "the new loss changes the initialization too brutally".
The other arms take the two suspects, random heads and full weight, away one by one and together.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import set_seed

from headway import model_path
from headway.data import Example, PromptCompletion, load_examples, word_problems
from headway.errors import ConfigError
from headway.evaluation.tasks.exact_match import exact_match
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.reproduce.configs import FinetuningConfig
from headway.experiments.reproduce.models import randomise_heads
from headway.experiments.reproduce.runs import Measures, Run
from headway.files import write_text
from headway.heads import CONFIG_FILE
from headway.model import HeadwayModel, load_model_and_tokenizer
from headway.training import finetune
from headway.training.configs import FinetuneConfig

BASELINE = "next-token"


@dataclass(frozen=True)
class Arm:
    heads: Literal["pretrained", "random"]
    small: bool  # a small weight that rises over the run, or 1 throughout


ARMS = {
    BASELINE: None,
    "random heads, full weight": Arm("random", small=False),
    "random heads, small weight": Arm("random", small=True),
    "pretrained heads, full weight": Arm("pretrained", small=False),
    "pretrained heads, small weight": Arm("pretrained", small=True),
}


def check(config: FinetuningConfig) -> None:
    """Raise ConfigError where there are no pretrained heads to compare with."""
    if config.heads is None and not (Path(model_path(config.model or "")) / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{config.model} brings no heads that could be told from random ones: train some with `headway heads train --num-heads "
            f"{config.num_heads}`, and name their folder with --heads."
        )


def learn(config: FinetuningConfig, run: Run, folder: Path, advance: Callable[[int], None]) -> dict[str, Any]:
    """Fine-tune one arm and score it. Raises: as `finetune`."""
    assert config.model is not None and config.steps and config.batch_size and config.learning_rate and config.max_length
    arm = ARMS[run.arm]
    start, heads = config.model, config.heads
    if arm is not None and arm.heads == "random":
        start, heads = str(_with_random_heads(config, run.seed, folder / "start")), None
    small = arm is not None and arm.small
    finetune(
        FinetuneConfig(
            model=start,
            heads=heads,
            num_heads=config.num_heads,
            data=str(_data(config, run.seed)),
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
            seed=run.seed,
            save_steps=config.steps,
            log_steps=max(1, config.steps // 20),
            quiet=True,
        )
    )
    advance(config.steps)
    history = json.loads((folder / "model" / "history.json").read_text(encoding="utf-8"))
    curve = [{"step": entry["step"], "measures": {"training loss": entry["loss_1"]}} for entry in history if "loss_1" in entry]
    return {"curve": curve, "measures": score(config, str(folder / "model"))}


def score(config: FinetuningConfig, folder: str) -> Measures:
    """Held-out next-token loss, and the share of problems solved where the data has prompts."""
    assert config.test_examples is not None and config.max_length is not None
    model, tokenizer = load_model_and_tokenizer(folder)
    name, _, level = config.data.partition(":")
    if name == "word-problems":
        rows = word_problems("test", config.test_examples, int(level or 1), seed=1)
        test: list[Example] = [PromptCompletion(row["prompt"], row["completion"]) for row in rows]
    else:
        test = load_examples(config.data, "test", config.test_examples)
    found = {"loss": held_out_on(model, tokenizer, test, config.max_length).losses[0]}
    problems = [example for example in test if isinstance(example, PromptCompletion)]
    if len(problems) == len(test):
        matched = exact_match(model, tokenizer, problems, max_new_tokens=64, batch_size=50, quiet=True)
        found |= {"exact match": matched.strict, "tokens a forward": matched.stats.tokens_per_forward}
    return found


def _data(config: FinetuningConfig, seed: int) -> Path | str:
    """A file of generated problems of that seed, the same for all arms; other sources as they are."""
    name, _, level = config.data.partition(":")
    if name != "word-problems":
        return config.data
    assert config.examples is not None
    file = config.output_dir / config.EXPERIMENT / "data" / f"train-{seed}.jsonl"
    problems = word_problems("train", config.examples, int(level or 1), seed=seed)
    write_text(file, "".join(json.dumps(problem) + "\n" for problem in problems))
    return file


def _with_random_heads(config: FinetuningConfig, seed: int, folder: Path) -> Path:
    assert config.model is not None
    model, tokenizer = load_model_and_tokenizer(config.model)
    model = HeadwayModel.from_trunk(model.trunk, "parallel", config.num_heads)
    set_seed(seed)
    randomise_heads(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
