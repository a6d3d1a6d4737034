"""Run of a comparison of families: train the heads, then measure losses and decoding."""

import math
import time
from pathlib import Path
from typing import Any

import torch

import headway.config
from headway.data import Example, Text, load_examples, tokenize_prompt
from headway.errors import DataError, HeadwayError
from headway.evaluation.benchmarks.drafting import drafting
from headway.evaluation.loading import keep_special_tokens
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.families.results import FamilyResult
from headway.experiments.families.specs import FamilySpec, training_config
from headway.experiments.timing import TIMED_STEPS, WARMUP_STEPS, MemoryRecorder, StepTimer
from headway.heads import HeadStack
from headway.model import HeadwayModel, best_device, load_model_and_tokenizer, load_tokenizer
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig
from headway.training.loop import CONFIG, read_settings
from headway.trunk import TrunkView

MODEL = "model"  # folder in a run's folder
TRAINING = ("objective", "head_weights", "learning_rate", "lr_scheduler")  # settings to report


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Result of a FamilySpec in JSON form. Raises: as `train_heads`; HeadwayError if a held-out loss is not finite."""
    family = FamilySpec.from_json(spec)
    torch.set_num_threads(family.threads)
    if family.timing:
        assert family.training is not None
        few = {"max_steps": WARMUP_STEPS + TIMED_STEPS, "save_steps": WARMUP_STEPS + TIMED_STEPS}
        return {"label": family.label, "step_seconds": _train({**family.training, **few}, family.joint, folder)[0].step_seconds}
    return train_and_measure(family, folder).to_json()


def train_and_measure(spec: FamilySpec, folder: Path) -> FamilyResult:
    """Train the heads and measure the model; without training settings, measure the trunk. Raises: as `run`."""
    if spec.training is None:
        trunk = HeadwayModel.from_trunk(spec.model, count=0).to(best_device()).eval()
        return FamilyResult(arm=spec.label, seed=spec.seed, **measure(trunk, spec.model, spec))
    timer, memory = _train(spec.training, spec.joint, folder)
    settings = read_settings(training_config(spec.joint), folder / MODEL / CONFIG)
    model, _ = load_model_and_tokenizer(str(folder / MODEL))
    measured = measure(model, str(folder / MODEL), spec)
    steps = spec.training["max_steps"]
    measured["metrics"] |= {
        "steps": steps,
        "seconds": timer.seconds,
        "processor_seconds": timer.processor_seconds,
        "step_seconds": timer.step_seconds if steps > WARMUP_STEPS else timer.seconds / steps,
        "memory_mib": memory.peak,
    }
    trained = {name: getattr(settings, name) for name in TRAINING} | {"learning_rate": settings.heads_lr}
    family = spec.training.get("family")
    return FamilyResult(arm=spec.label, seed=spec.seed, family=family, trained=trained, **measured)


def measure(model: HeadwayModel, source: str, spec: FamilySpec) -> dict[str, Any]:
    """Sizes, held-out losses, and decoding at all temperatures, as fields of FamilyResult.

    Args:
        model: trunk with or without heads.
        source: folder or hub id of the tokenizer.
        spec: settings of the measurements.
    """
    settings = spec.measured
    keep_special_tokens(model.trunk)  # all families decode with the settings of the comparison alone
    tokenizer = load_tokenizer(source)
    examples = load_examples(settings.validation, "test", settings.test_examples)
    started = time.perf_counter()
    held_out = held_out_on(model, tokenizer, examples, settings.max_length)
    if not all(math.isfinite(loss) for loss in held_out.losses):
        raise HeadwayError(f"Held-out losses became {held_out.losses}. Lower learning_rate.")
    prompts = prompts_of(examples, tokenizer, settings.prompts, settings.prompt_tokens)
    if not prompts:
        raise DataError(f"{settings.validation} has no text or prompt to continue.")
    metrics: dict[str, Any] = {
        "trunk_parameters": sum(parameter.numel() for parameter in model.trunk.parameters()),
        "trunk_loss": held_out.losses[0],
        "held_out_tokens": held_out.tokens,
        "held_out_seconds": time.perf_counter() - started,
    }
    dtype = str(model.trunk.dtype).removeprefix("torch.")
    measured: dict[str, Any] = {"metrics": metrics, "device": str(model.device), "dtype": dtype, "prompts": len(prompts)}
    if model.heads is None:
        return measured
    metrics["parameters"], metrics["unembedding_parameters"] = count_parameters(model.heads, model.view)
    metrics |= {"head_losses": held_out.losses[1:], "agreement": held_out.agreement, "accuracy": held_out.accuracy}
    started = time.perf_counter()
    measured["decoding"] = {
        f"{temperature:g}": drafting(
            model, prompts, settings.max_new_tokens, settings.tree_nodes, settings.repeats, temperature, seed=spec.seed
        )
        for temperature in spec.temperatures
    }
    metrics["decoding_seconds"] = time.perf_counter() - started
    return measured


def count_parameters(heads: HeadStack, view: TrunkView) -> tuple[int, int]:
    """Number of parameters that the heads add to the trunk, and the number in unembeddings."""
    sizes = {id(parameter): parameter.numel() for parameter in heads.parameters()}
    unembeddings = {id(tensor) for unembedding in heads.unembeddings(view) for tensor in (unembedding.weight, unembedding.bias)}
    return sum(sizes.values()), sum(size for key, size in sizes.items() if key in unembeddings)


def prompts_of(examples: list[Example], tokenizer: Any, count: int, max_tokens: int) -> list[list[int]]:
    """The last `max_tokens` tokens of prompts; of plain texts, the first tokens, at most half of the text."""
    prompts: list[list[int]] = []
    for example in examples:
        ids = tokenize_prompt(example, tokenizer)
        ids = ids[: min(max_tokens, len(ids) // 2)] if isinstance(example, Text) else ids[-max_tokens:]
        if ids and len(prompts) < count:
            prompts.append(ids)
    return prompts


def _train(settings: dict[str, Any], joint: bool, folder: Path) -> tuple[StepTimer, MemoryRecorder]:
    timer, memory = StepTimer(folder / "seconds.json"), MemoryRecorder(folder / "memory.json")
    config = headway.config.build(training_config(joint), {**settings, "output_dir": folder / MODEL}, "family")
    if isinstance(config, FinetuneConfig):
        finetune(config, [timer, memory])
    else:
        train_heads(config, [timer, memory])
    return timer, memory
