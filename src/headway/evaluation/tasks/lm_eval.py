"""Tasks of lm-eval, with its scores, and what generating took beside them."""

import json
import math
import time
from typing import Any

from headway.config import nearest
from headway.decoding import DecodeStats
from headway.errors import CheckpointError, ConfigError, DataError
from headway.evaluation.configs import EvalConfig
from headway.evaluation.run import load
from headway.evaluation.tasks.catalog import CODE, parts
from headway.evaluation.tasks.lm_eval_model import HeadwayLM  # explains itself where lm-eval is missing

UNSAFE = (
    "{}: lm-eval would run what the model wrote without protection. Headway's own humaneval and mbpp run it in a sandbox: "
    "--task humaneval --allow-code."
)
KEPT = ("doc_id", "filter", "target", "resps", "filtered_resps")  # of a sample, beside its metrics


def score(config: EvalConfig) -> dict[str, Any]:
    """Raises ConfigError for a name that lm-eval does not have, or a task that would run code; DataError without its data."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    _, names = parts(config.task)
    if code := [name for name in names if name.startswith(CODE)]:
        raise ConfigError(UNSAFE.format(code[0]))
    own = str(config.include_path) if config.include_path is not None else None
    manager = TaskManager(include_path=own, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):  # reading lm-eval's thousands of files takes a while
        manager = TaskManager(include_path=own)
    for name in names:
        if name not in manager.all_tasks:
            raise ConfigError(f"lm-eval has no task {name!r}{nearest(name, manager.all_tasks) or '.'}")
    model, tokenizer = load(config.model, config.dtype)
    lm = HeadwayLM(
        model, tokenizer, batch_size=config.batch_size, drafter=config.drafter, plain=not config.speculative, seed=config.seed
    )
    began = time.monotonic()
    try:
        found = simple_evaluate(
            model=lm,
            tasks=list(names),
            num_fewshot=config.shots,
            limit=config.limit,
            task_manager=manager,
            gen_kwargs={"max_gen_toks": config.max_new_tokens} if config.max_new_tokens else None,
            random_seed=config.seed,
            numpy_random_seed=config.seed,
            torch_random_seed=config.seed,
            fewshot_random_seed=config.seed,
        )
    except ImportError as error:
        raise ConfigError(f"{', '.join(names)} needs a package that is not installed: {error}") from error
    except CheckpointError:
        raise
    except OSError as error:
        raise DataError(f"The data of {', '.join(names)} cannot be loaded: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        if "marked as unsafe" not in str(error):
            raise
        raise ConfigError(UNSAFE.format(", ".join(names))) from error
    assert found is not None  # it is None on other ranks only
    return {
        "model": config.model,
        "task": config.task,
        "scores": {name: _scores(metrics) for name, metrics in found["results"].items()},
        "decoding": decoding(lm.stats, lm.seconds),
        "seconds": time.monotonic() - began,
        "samples": {name: [_sample(each) for each in samples] for name, samples in found.get("samples", {}).items()},
    }


def decoding(stats: DecodeStats, seconds: float) -> dict[str, Any]:
    """What generating took; nothing where nothing was generated."""
    if not stats.tokens:
        return {}
    figures = {"tokens": stats.tokens, "tokens_per_forward": stats.tokens_per_forward, "acceptance": list(stats.acceptance)}
    return {**figures, "seconds": seconds, "tokens_per_second": stats.tokens / seconds}


def _scores(metrics: dict[str, Any]) -> dict[str, Any]:
    found = {name: _plain(value) for name, value in metrics.items() if name not in ("alias", "name", "sample_len")}
    return {name: value for name, value in found.items() if not isinstance(value, str)}


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in sample.items() if name in (*KEPT, *sample.get("metrics", ()))}


def _plain(value: Any) -> Any:
    """As JSON can hold it: numbers of numpy as numbers, what is no number as null, all else as text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value, default=str)
