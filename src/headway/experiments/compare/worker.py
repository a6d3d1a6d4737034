"""One run of a comparison in a process of its own, so that what goes wrong in it stays in it.

`python -m headway.experiments.compare.worker FOLDER` reads FOLDER/run.json and writes FOLDER/result.json.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import headway.config
from headway.data import Example, load_examples
from headway.errors import HeadwayError
from headway.evaluation.benchmarks.timing import wait
from headway.evaluation.prompts import prompts_with_completions
from headway.evaluation.tasks.exact_match import exact_match
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.compare.configs import TaskConfig
from headway.files import write_json
from headway.model import HeadwayModel, load_model_and_tokenizer, load_tokenizer
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig, HeadsTrainConfig

SPEC, RESULT, MODEL = "run.json", "result.json", "model"
WARMING, TIMED = 3, 5  # steps that no rate is taken from, and those that it is


def run(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Warm up heads, fine-tune and score, as far as the run asks for each. Raises: as `finetune` does."""
    torch.set_num_threads(spec["threads"])
    task = headway.config.build(TaskConfig, spec["scored"], "task")
    test = load_examples(task.test or task.data, "test", task.test_examples)
    result = {"task": spec["task"], "arm": spec["arm"], "seed": spec["seed"], "model": spec["model"]}
    if spec["finetune"] is None:
        return result | {"steps": 0, "seconds": 0.0, "warm_up_seconds": 0.0, **score(spec["model"], task, test)}
    points = Points(folder / "points.json", spec["points"], task, test[: spec["point_examples"]], spec["model"])
    warming = _train(folder, spec["finetune"], spec["warm_up"], points)
    history = json.loads((folder / MODEL / "history.json").read_text(encoding="utf-8"))
    return result | {
        "steps": spec["finetune"]["max_steps"],
        "seconds": points.seconds,
        "warm_up_seconds": warming.seconds if warming is not None else 0.0,
        "curve": [[entry["step"], entry["loss_1"]] for entry in history if "loss_1" in entry],
        "points": points.found,
        **score(str(folder / MODEL), task, test),
    }


def rates(folder: Path, spec: dict[str, Any]) -> dict[str, float]:
    """Seconds that a step of fine-tuning takes here, and one of the warm-up, 0 where there is none."""
    torch.set_num_threads(spec["threads"])
    few = {"max_steps": WARMING + TIMED, "save_steps": WARMING + TIMED}
    tuning = Clock(folder / "seconds.json")
    warming = _train(folder, {**spec["finetune"], **few}, spec["warm_up"] and {**spec["warm_up"], **few}, tuning)
    return {"tuning": tuning.rate, "warming": warming.rate if warming is not None else 0.0}


def _train(folder: Path, settings: dict[str, Any], warm_up: dict[str, Any] | None, clock: "Clock") -> "Clock | None":
    """Both stages; returns the clock of the warm-up."""
    warming = None
    if warm_up is not None:
        warming = Clock(folder / "warm-up.json")
        out = folder / "heads"
        train_heads(headway.config.build(HeadsTrainConfig, {**warm_up, "output_dir": out}, "warm_up"), [warming])
        settings = {**settings, "heads": str(out)}
    finetune(headway.config.build(FinetuneConfig, {**settings, "output_dir": folder / MODEL}, "arm"), [clock])
    return warming


def score(source: str, task: TaskConfig, test: list[Example]) -> dict[str, Any]:
    """Held-out losses, and where the task has answers the share that match; of a saved model."""
    model, tokenizer = load_model_and_tokenizer(source)
    measured = held_out_on(model, tokenizer, test, _length(model), 8)
    found: dict[str, Any] = {"loss": measured.losses[0], "head_losses": measured.losses[1:], "agreement": measured.agreement}
    if task.metric == "exact-match":
        matched = exact_match(model, tokenizer, prompts_with_completions(test, task.data), task.max_new_tokens, 32, quiet=True)
        found |= {
            "score": matched.strict,
            "tokens_per_forward": matched.stats.tokens_per_forward,
            "acceptance": list(matched.stats.acceptance),
            "sample": matched.answers[0].text,
        }
    return found


def _length(model: HeadwayModel) -> int:
    return min(512, model.view.context or 512)


class Clock(TrainerCallback):
    """Seconds that steps take, and nothing else; kept in a file, so that a resumed run goes on counting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.by_step: dict[str, float] = known.get("seconds", {})
        self._began = 0.0

    @property
    def seconds(self) -> float:
        return sum(self.by_step.values())

    @property
    def rate(self) -> float:
        """Seconds of a step once it runs smoothly. Raises HeadwayError where there were too few."""
        steady = [seconds for step, seconds in self.by_step.items() if int(step) > WARMING]
        if not steady:
            raise HeadwayError(f"A rate needs more than {WARMING} steps.")
        return sum(steady) / len(steady)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait(args.device)
        self.by_step[str(state.global_step)] = time.perf_counter() - self._began

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.keep()

    def keep(self) -> None:
        write_json(self.path, {"seconds": self.by_step})


class Points(Clock):
    """Measures the run on its way: [step, seconds so far, held-out loss, score or None]."""

    def __init__(self, path: Path, steps: list[int], task: TaskConfig, test: list[Example], model: str) -> None:
        super().__init__(path)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.known: dict[str, list[float | None]] = known.get("points", {})
        self.steps, self.task, self.test = set(steps), task, test
        self.tokenizer = load_tokenizer(model)

    @property
    def found(self) -> list[list[float | None]]:
        return [self.known[step] for step in sorted(self.known, key=int)]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        later = [step for step in self.by_step if int(step) > state.global_step]  # done again after a kill
        for step in later:
            self.by_step.pop(step)
            self.known.pop(step, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step not in self.steps:
            return
        model: HeadwayModel = kwargs["model"].model
        loss = held_out_on(model, self.tokenizer, self.test, _length(model), 8).losses[0]
        if not math.isfinite(loss):
            raise HeadwayError(f"The held-out loss became {loss} by step {state.global_step}. Lower this arm's learning_rate.")
        share = None
        if self.task.metric == "exact-match":
            problems = prompts_with_completions(self.test, self.task.data)
            share = exact_match(model, self.tokenizer, problems, self.task.max_new_tokens, 32, quiet=True).strict
        self.known[str(state.global_step)] = [state.global_step, self.seconds, loss, share]
        self.keep()

    def keep(self) -> None:
        write_json(self.path, {"seconds": self.by_step, "points": self.known})


def _leave_with(parent: int) -> None:
    """End when the comparison that started this run is gone: a second one would start it again."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(folder: Path, work: Callable[[Path, dict[str, Any]], dict[str, Any]]) -> int:
    """Do what the folder asks for; 2 after a mistake that the user can mend, said on stderr."""
    parent = os.getppid()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    asked = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    try:
        found = work(folder, asked)
    except HeadwayError as error:
        print(f"{' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    write_json(folder / RESULT, {"run": asked, "result": found})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), lambda folder, spec: rates(folder, spec) if spec.get("rate") else run(folder, spec)))
