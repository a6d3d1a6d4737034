"""Tasks of examples: exact match of answers, and losses on held-out text."""

import random
from dataclasses import asdict
from typing import Any

from headway.data import load_examples
from headway.errors import DataError
from headway.evaluation.benchmarks.quantization_effect import quantize_and_compare
from headway.evaluation.benchmarks.speed import speed
from headway.evaluation.configs import EvalConfig
from headway.evaluation.run import figures, held_out_on, load
from headway.evaluation.tasks.exact_match import exact_match
from headway.evaluation.tasks.held_out import HeldOut


def score(config: EvalConfig) -> dict[str, Any]:
    """Figures of one of these tasks."""
    model, tokenizer = load(config.model, config.dtype)
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
    answer = config.max_new_tokens or 256
    longest = min(64, answer)

    def measured() -> HeldOut:
        return held_out_on(model, tokenizer, examples, config.max_length, config.batch_size)

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
        matched = exact_match(model, tokenizer, examples, answer, config.batch_size, not config.speculative, shots)
        results |= {
            "exact_match": matched.strict,
            "flexible_match": matched.flexible,
            "tokens_per_forward": matched.tokens_per_forward,
        }
        results["acceptance"] = list(matched.acceptance)
        results["answers"] = [asdict(answer) for answer in matched.answers]
    if config.speed and model.count and config.speculative:
        results["speed"] = figures(speed(model, timed, longest))
    return results
