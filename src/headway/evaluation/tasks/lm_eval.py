"""Tasks of lm-eval: scores, and the cost of generating the answers."""

import json
import math
import time
from dataclasses import dataclass
from typing import Any

from headway.config import nearest
from headway.errors import CheckpointError, ConfigError, DataError
from headway.evaluation.configs import EvalConfig
from headway.evaluation.loading import load_evaluated
from headway.evaluation.results import DecodingSummary, Scored, TaskResult
from headway.evaluation.tasks import CODE, split_task
from headway.evaluation.tasks.lm_eval_model import HeadwayLM  # raises a ConfigError if lm-eval is missing

UNSAFE = (
    "{}: lm-eval would run what the model wrote without protection. Headway's own humaneval and mbpp run it in a sandbox: "
    "--task humaneval --allow-code."
)
SAMPLE_KEYS = ("doc_id", "filter", "target", "resps", "filtered_resps")  # of a sample, besides its metrics


@dataclass(frozen=True, kw_only=True)
class LMEvalResult(TaskResult):
    scores: dict[str, dict[str, Any]]  # by task and metric
    decoding: DecodingSummary | None
    seconds: float  # the whole evaluation
    samples: dict[str, list[dict[str, Any]]]  # by task


def score(config: EvalConfig) -> Scored:
    """Scores of tasks of lm-eval.

    Raises:
        ConfigError: lm-eval has no task of this name, or the task would run generated code.
        DataError: the data of the task cannot be loaded.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    _, names = split_task(config.task)
    if code := [name for name in names if name.startswith(CODE)]:
        raise ConfigError(UNSAFE.format(code[0]))
    include_path = str(config.include_path) if config.include_path is not None else None
    manager = TaskManager(include_path=include_path, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):  # reading lm-eval's thousands of files takes a while
        manager = TaskManager(include_path=include_path)
    for name in names:
        if name not in manager.all_tasks:
            raise ConfigError(f"lm-eval has no task {name!r}{nearest(name, manager.all_tasks) or '.'}")
    model, tokenizer = load_evaluated(config, config.dtype)
    lm = HeadwayLM(
        model, tokenizer, batch_size=config.batch_size, drafter=config.drafter, speculative=config.speculative, seed=config.seed
    )
    began = time.monotonic()
    try:
        output = simple_evaluate(
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
    assert output is not None  # None only on other ranks
    result = LMEvalResult(
        model=config.model,
        task=config.task,
        scores={name: _scores(metrics) for name, metrics in output["results"].items()},
        decoding=DecodingSummary.of(lm.stats, lm.seconds),
        seconds=time.monotonic() - began,
        samples={name: [_sample(sample) for sample in samples] for name, samples in output.get("samples", {}).items()},
    )
    return Scored(result)


def _scores(metrics: dict[str, Any]) -> dict[str, Any]:
    values = {name: _json_value(value) for name, value in metrics.items() if name not in ("alias", "name", "sample_len")}
    return {name: value for name, value in values.items() if not isinstance(value, str)}


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: _json_value(value) for name, value in sample.items() if name in (*SAMPLE_KEYS, *sample.get("metrics", ()))}


def _json_value(value: Any) -> Any:
    """The value with types that JSON knows: numpy numbers as numbers, infinities and NaN as null, objects as text."""
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value, default=str)
