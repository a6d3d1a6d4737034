"""Run of a comparison: warm up the heads, fine-tune, and score."""

import json
import math
from pathlib import Path
from typing import Any

import torch

import headway.config
from headway.data import Example, load_examples
from headway.errors import HeadwayError
from headway.evaluation.loading import keep_special_tokens
from headway.evaluation.prompts import prompts_with_completions
from headway.evaluation.results import as_json
from headway.evaluation.tasks.exact_match import exact_match
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.compare.configs import TaskConfig
from headway.experiments.compare.results import ArmResult
from headway.experiments.compare.specs import ArmSpec, StepRates
from headway.experiments.timing import TIMED_STEPS, WARMUP_STEPS, CurveRecorder, StepTimer
from headway.model import HeadwayModel, load_model_and_tokenizer, load_tokenizer
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

MODEL, HEADS = "model", "heads"  # folders of a run
SCORED_TOGETHER = 32  # prompts of a batch


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Result of an ArmSpec in JSON form. Raises: as `finetune`."""
    arm = ArmSpec.from_json(spec)
    torch.set_num_threads(arm.threads)
    return dict(as_json(measure_rates(arm, folder))) if arm.timing else train_and_score(arm, folder).to_json()


def train_and_score(spec: ArmSpec, folder: Path) -> ArmResult:
    """Train an arm with a seed and score the model. Raises: as `finetune`."""
    task = spec.scored
    test = load_examples(task.test or task.data, "test", task.test_examples)
    identity: dict[str, Any] = {"task": spec.task, "arm": spec.arm, "seed": spec.seed, "model": spec.model, "steps": spec.steps}
    if spec.finetune is None:
        return ArmResult(**identity, seconds=0.0, warm_up_seconds=0.0, **score(spec.model, task, test))
    tokenizer = load_tokenizer(spec.model)

    def score_point(model: HeadwayModel) -> dict[str, float]:
        metrics = {"loss": held_out_on(model, tokenizer, test[: spec.point_examples], _max_length(model)).losses[0]}
        if not math.isfinite(metrics["loss"]):
            raise HeadwayError(f"The held-out loss became {metrics['loss']}. Lower this arm's learning_rate.")
        if task.metric == "exact-match":
            problems = prompts_with_completions(test[: spec.point_examples], task.data)
            matched = exact_match(model, tokenizer, problems, task.max_new_tokens, SCORED_TOGETHER, quiet=True)
            metrics["score"] = matched.strict
        return metrics

    recorder = CurveRecorder(folder / "points.json", spec.points, score_point)
    warm_up = _train(folder, spec.finetune, spec.warm_up, recorder)
    warm_up_seconds = warm_up.seconds if warm_up is not None else 0.0
    scores = score(str(folder / MODEL), task, test)
    scores["metrics"]["training_seconds"] = recorder.seconds + warm_up_seconds
    history = json.loads((folder / MODEL / "history.json").read_text(encoding="utf-8"))
    return ArmResult(
        **identity,
        **scores,
        seconds=recorder.seconds,
        warm_up_seconds=warm_up_seconds,
        curve=[(entry["step"], entry["loss_1"]) for entry in history if "loss_1" in entry],
        points=recorder.points,
    )


def measure_rates(spec: ArmSpec, folder: Path) -> StepRates:
    """Train a few steps of both stages. Raises: as `finetune`."""
    assert spec.finetune is not None
    few = {"max_steps": WARMUP_STEPS + TIMED_STEPS, "save_steps": WARMUP_STEPS + TIMED_STEPS}
    timer = StepTimer(folder / "seconds.json")
    warm_up = _train(folder, {**spec.finetune, **few}, spec.warm_up and {**spec.warm_up, **few}, timer)
    return StepRates(timer.step_seconds, warm_up.step_seconds if warm_up is not None else 0.0)


def score(source: str, task: TaskConfig, test: list[Example]) -> dict[str, Any]:
    """Scores of a saved model, as fields of ArmResult."""
    model, tokenizer = load_model_and_tokenizer(source)
    if task.generation_config == "none":
        keep_special_tokens(model.trunk)
    measured = held_out_on(model, tokenizer, test, _max_length(model))
    metrics = {"loss": measured.losses[0]}
    scores = {"metrics": metrics, "head_losses": measured.losses[1:], "agreement": measured.agreement}
    if task.metric == "exact-match":
        problems = prompts_with_completions(test, task.data)
        matched = exact_match(model, tokenizer, problems, task.max_new_tokens, SCORED_TOGETHER, quiet=True)
        metrics |= {"score": matched.strict, "tokens_per_forward": matched.stats.tokens_per_forward}
        scores |= {"acceptance": list(matched.stats.acceptance), "sample": matched.answers[0].text}
    return scores


def _train(folder: Path, settings: dict[str, Any], warm_up: dict[str, Any] | None, timer: StepTimer) -> StepTimer | None:
    """Train both stages; return the timer of the warm-up."""
    heads_timer = None
    if warm_up is not None:
        heads_timer = StepTimer(folder / "warm-up.json")
        config = headway.config.build(HeadsTrainConfig, {**warm_up, "output_dir": folder / HEADS}, "warm_up")
        train_heads(config, [heads_timer])
        settings = {**settings, "heads": str(folder / HEADS)}
    finetune(headway.config.build(FinetuneConfig, {**settings, "output_dir": folder / MODEL}, "arm"), [timer])
    return heads_timer


def _max_length(model: HeadwayModel) -> int:
    return min(512, model.view.context or 512)
