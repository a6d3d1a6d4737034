"""`headway eval`: one model, one task, one dictionary of figures."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from headway import model_path
from headway.data import Collator, encode, load_examples, pack
from headway.errors import CheckpointError, DataError
from headway.evaluation.configs import EvalConfig
from headway.evaluation.exact_match import exact_match
from headway.evaluation.held_out import HeldOut, held_out
from headway.evaluation.quantized import quantize_and_compare
from headway.evaluation.speed import Speed, speed
from headway.model import HeadwayModel


def score(config: EvalConfig) -> dict[str, Any]:
    """Run the task. Raises CheckpointError, DataError and ConfigError for what cannot be loaded or used."""
    model, tokenizer = load(config.model)
    source = config.data or {"gsm8k": "gsm8k", "word-problems": "word-problems", "held-out": "stdlib"}[config.task]
    examples = load_examples(source, config.split, config.limit)
    results: dict[str, Any] = {"model": config.model, "task": config.task, "data": source, "examples": len(examples)}
    if config.task == "held-out":
        prompts = [tokenizer(e.get("text") or e.get("prompt", ""), verbose=False)["input_ids"][:64] for e in examples]
    else:
        if any("prompt" not in example for example in examples):
            raise DataError(f"{source} has no prompts and completions, which {config.task} needs.")
        prompts = [tokenizer(e["prompt"], verbose=False)["input_ids"] for e in examples]
    timed = [prompt for prompt in prompts if prompt][: config.speed_prompts if config.speed else 0]
    longest = min(64, config.max_new_tokens)

    def measured() -> HeldOut:
        return held_out_on(model, tokenizer, examples, config.length, config.batch_size)

    losses = None
    if config.quantize != "none":
        found, losses = quantize_and_compare(model, config.quantize, measured, timed, longest)
        results["quantized"] = asdict(found)
    if config.task == "held-out":
        results |= asdict(losses or measured())
    else:
        shots = []
        if config.shots:
            pool = load_examples(source, "train")
            shots = random.Random(config.seed).sample(pool, config.shots)
        matched = exact_match(model, tokenizer, examples, config.max_new_tokens, config.batch_size, config.plain, shots)
        results |= {
            "exact_match": matched.strict,
            "flexible_match": matched.flexible,
            "tokens_per_forward": matched.tokens_per_forward,
        }
        results["acceptance"] = list(matched.acceptance)
        results["answers"] = [asdict(answer) for answer in matched.answers]
    if config.speed and model.count and not config.plain:
        results["speed"] = figures(speed(model, timed, longest))
    return results


def load(name: str) -> tuple[HeadwayModel, Any]:
    """Model and tokenizer; `embedded` is the one that ships inside. Raises CheckpointError."""
    folder = model_path(name)
    if Path(folder).is_dir():
        logging.disable_progress_bar()  # loading takes a moment; only a download is worth a bar
    model = HeadwayModel.from_pretrained(folder).eval()
    try:
        return model, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The tokenizer of {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error


def held_out_on(model: HeadwayModel, tokenizer: Any, examples: list, length: int = 512, batch_size: int = 8) -> HeldOut:
    """Held-out losses of examples, packed into rows."""
    rows = pack([part for example in examples for part in encode(example, tokenizer, length)], length)
    collate = Collator(tokenizer.pad_token_id or 0)
    return held_out(model, (collate(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)))


def figures(measured: Speed) -> dict[str, Any]:
    """A speed measurement as plain figures, the ratio with its spread."""
    spread = {"ratio": measured.ratio, "ratio_min": min(measured.ratios), "ratio_max": max(measured.ratios)}
    return {**spread, **{k: v for k, v in asdict(measured).items() if k != "ratios"}}
