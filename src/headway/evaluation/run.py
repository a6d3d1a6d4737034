"""`headway eval`: one model, one task, one dictionary of figures."""

from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from headway import model_path
from headway.data import Collator, encode, pack
from headway.errors import CheckpointError
from headway.evaluation.benchmarks.speed import Speed
from headway.evaluation.configs import Dtype, EvalConfig
from headway.evaluation.tasks.catalog import TASKS, parts
from headway.evaluation.tasks.held_out import HeldOut, held_out
from headway.model import HeadwayModel, best_device


def score(config: EvalConfig) -> dict[str, Any]:
    """Run the task. Raises CheckpointError, DataError and ConfigError for what cannot be loaded or used."""
    own, theirs = parts(config.task)
    results = {name: run(TASKS[name][0], replace(config, task=name)) for name in own}
    if theirs:
        results["lm-eval"] = run("lm_eval", config)
    return next(iter(results.values())) if len(results) == 1 else results


def run(module: str, config: EvalConfig) -> dict[str, Any]:
    found: dict[str, Any] = import_module(f"headway.evaluation.tasks.{module}").score(config)
    return found


def load(name: str, dtype: Dtype = "saved") -> tuple[HeadwayModel, Any]:
    """Model, on the accelerator if there is one, and tokenizer; `embedded` is the one that ships inside. Raises CheckpointError."""
    folder = model_path(name)
    if Path(folder).is_dir():
        logging.disable_progress_bar()  # loading takes a moment; only a download is worth a bar
    model = HeadwayModel.from_pretrained(folder, dtype=as_torch(dtype)).to(best_device()).eval()
    try:
        return model, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The tokenizer of {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error


def as_torch(dtype: Dtype) -> torch.dtype | None:
    return None if dtype == "saved" else getattr(torch, dtype)


def held_out_on(model: HeadwayModel, tokenizer: Any, examples: list, length: int = 512, batch_size: int = 8) -> HeldOut:
    """Held-out losses of examples, packed into rows."""
    rows = pack([part for example in examples for part in encode(example, tokenizer, length)], length)
    collate = Collator(tokenizer.pad_token_id or 0)
    return held_out(model, (collate(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)))


def figures(measured: Speed) -> dict[str, Any]:
    """A speed measurement as plain figures, the ratio with its spread."""
    spread = {"ratio": measured.ratio, "ratio_min": min(measured.ratios), "ratio_max": max(measured.ratios)}
    return {**spread, **{k: v for k, v in asdict(measured).items() if k != "ratios"}}
