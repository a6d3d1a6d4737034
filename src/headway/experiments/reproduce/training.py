"""Run of a reproduced experiment."""

import time
from pathlib import Path
from typing import Any

from headway.experiments.reproduce import experiments
from headway.experiments.reproduce.results import ReproductionResult
from headway.experiments.reproduce.specs import ReproductionSpec


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Result of a ReproductionSpec in JSON form. Raises: as `headway.training.loop.run` and `finetune`."""
    parsed, config = ReproductionSpec.from_json(spec)
    started = time.perf_counter()
    learnt = experiments.of(config).learn(parsed, folder, ())
    result = ReproductionResult(
        **vars(parsed),
        group=parsed.group,
        curve=learnt.curve,
        metrics=learnt.metrics,
        parameters=learnt.parameters,
        seconds=time.perf_counter() - started,
    )
    return result.to_json()
