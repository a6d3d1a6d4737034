"""One family on the trunk, trained and measured in a process of its own, so that its memory is its own.

`python -m headway.experiments.families.worker FOLDER` reads FOLDER/run.json and writes FOLDER/result.json.
"""

import dataclasses
import json
import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import headway.config
from headway.data import Example, Text, load_examples, tokenize_prompt
from headway.errors import DataError, HeadwayError
from headway.evaluation.benchmarks.drafting import drafting
from headway.evaluation.benchmarks.timing import peak_memory
from headway.evaluation.tasks.held_out import held_out_on
from headway.experiments.compare.worker import MODEL, TIMED, WARMING, Clock, main
from headway.experiments.families.runs import kind
from headway.files import write_json
from headway.heads import HeadStack
from headway.model import HeadwayModel, best_device, load_model_and_tokenizer, load_tokenizer
from headway.training import finetune, train_heads
from headway.training.configs import FinetuneConfig
from headway.training.loop import CONFIG, read_settings
from headway.trunk import TrunkView

SHOWN = ("objective", "head_weights", "learning_rate", "lr_scheduler")  # what says how a family was trained


def work(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """What the folder asks for. Raises: as `train_heads` does; HeadwayError where a held-out loss is not finite."""
    torch.set_num_threads(spec["threads"])
    found: dict[str, Any] = {"label": spec["label"], "seed": spec["seed"]}
    if "training" not in spec:
        trunk = HeadwayModel.from_trunk(spec["model"], count=0).to(best_device()).eval()
        return found | measured(trunk, spec["model"], spec)
    if spec.get("rate"):
        few = {"max_steps": WARMING + TIMED, "save_steps": WARMING + TIMED}
        return {"label": spec["label"], "rate": _train(folder, {**spec["training"], **few}, spec["joint"])[0].rate}
    clock, memory = _train(folder, spec["training"], spec["joint"])
    settings = read_settings(kind(spec["joint"]), folder / MODEL / CONFIG)
    model, _ = load_model_and_tokenizer(str(folder / MODEL))
    steps = spec["training"]["max_steps"]
    return {
        **found,
        "processor_seconds": clock.processor,
        "family": spec["training"].get("family"),
        "steps": steps,
        "seconds": clock.seconds,
        "step_seconds": clock.rate if steps > WARMING else clock.seconds / steps,
        "memory_mib": memory.peak,
        "trained": {name: getattr(settings, name) for name in SHOWN} | {"learning_rate": settings.heads_lr},
        **measured(model, str(folder / MODEL), spec),
    }


def measured(model: HeadwayModel, source: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Sizes, held-out losses, and how the model decodes, at each temperature."""
    how = spec["measured"]
    tokenizer = load_tokenizer(source)
    examples = load_examples(how["validation"], "test", how["test_examples"])
    began = time.perf_counter()
    losses = held_out_on(model, tokenizer, examples, how["max_length"], 8)
    if not all(math.isfinite(loss) for loss in losses.losses):
        raise HeadwayError(f"Held-out losses became {losses.losses}. Lower learning_rate.")
    prompts = prompts_of(examples, tokenizer, how["prompts"], how["prompt_tokens"])
    if not prompts:
        raise DataError(f"{how['validation']} has no text or prompt to continue.")
    found: dict[str, Any] = {
        "trunk_parameters": sum(parameter.numel() for parameter in model.trunk.parameters()),
        "device": str(model.device),
        "dtype": str(model.trunk.dtype).removeprefix("torch."),
        "trunk_loss": losses.losses[0],
        "held_out_tokens": losses.tokens,
        "held_out_seconds": time.perf_counter() - began,
        "prompts": len(prompts),
    }
    if model.heads is None:
        return found
    number, unembeddings = parameters(model.heads, model.view)
    decoding, began = {}, time.perf_counter()
    for temperature in spec["temperatures"]:
        ways = drafting(model, prompts, how["max_new_tokens"], how["tree_nodes"], how["repeats"], temperature, seed=spec["seed"])
        decoding[f"{temperature:g}"] = {name: dataclasses.asdict(way) for name, way in ways.items()}
    return found | {
        "parameters": number,
        "unembedding_parameters": unembeddings,
        "head_losses": losses.losses[1:],
        "agreement": losses.agreement,
        "accuracy": losses.accuracy,
        "decoding": decoding,
        "decoding_seconds": time.perf_counter() - began,
    }


def parameters(heads: HeadStack, view: TrunkView) -> tuple[int, int]:
    """How many numbers heads add to the trunk, and how many of those are in unembeddings."""
    own = {id(parameter): parameter.numel() for parameter in heads.parameters()}
    read_through = {id(part) for each in heads.unembeddings(view) for part in (each.weight, each.bias)}
    return sum(own.values()), sum(size for key, size in own.items() if key in read_through)


def prompts_of(examples: list[Example], tokenizer: Any, count: int, longest: int) -> list[list[int]]:
    """The ends of prompts, and of plain texts the beginnings, half of each at most."""
    found: list[list[int]] = []
    for example in examples:
        ids = tokenize_prompt(example, tokenizer)
        ids = ids[: min(longest, len(ids) // 2)] if isinstance(example, Text) else ids[-longest:]
        if ids and len(found) < count:
            found.append(ids)
    return found


class Steps(Clock):
    """Seconds of steps, and those in which a processor worked at them: fewer, where others keep the machine busy."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.worked: dict[str, float] = known.get("processor", {})
        self._worked = 0.0

    @property
    def processor(self) -> float:
        return sum(self.worked.values())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_begin(args, state, control, **kwargs)
        self._worked = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        self.worked[str(state.global_step)] = time.process_time() - self._worked

    def keep(self) -> None:
        write_json(self.path, {"seconds": self.by_step, "processor": self.worked})


class Memory(TrainerCallback):
    """MiB that training takes at most above the loaded trunk: the heads' weights, and what is allocated for steps until the first
    checkpoint; kept in a file, since a run that goes on from a checkpoint starts with its optimiser's moments in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peak: float = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else 0.0
        self._open = ExitStack()
        self._found = [0.0]
        self._heads = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.peak and state.global_step:
            return
        self.peak = 0.0
        heads = kwargs["model"].model.heads
        own = heads.parameters() if heads is not None else ()
        self._heads = sum(parameter.numel() * parameter.element_size() for parameter in own) / 2**20
        self._found = self._open.enter_context(peak_memory(args.device))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.peak:
            self._open.close()
            self.peak = self._found[0] + self._heads
            write_json(self.path, self.peak)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_save(args, state, control)


def _train(folder: Path, settings: dict[str, Any], joint: bool) -> tuple[Steps, Memory]:
    clock, memory = Steps(folder / "seconds.json"), Memory(folder / "memory.json")
    config = headway.config.build(kind(joint), {**settings, "output_dir": folder / MODEL}, "family")
    if isinstance(config, FinetuneConfig):
        finetune(config, [clock, memory])
    else:
        train_heads(config, [clock, memory])
    return clock, memory


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), work))
