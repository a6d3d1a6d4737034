"""Results of a reproduced experiment, and their JSON form."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers

from headway import __version__
from headway.evaluation.results import as_json
from headway.experiments.metrics import RunResult
from headway.experiments.output import settings_json
from headway.experiments.pairing import Difference
from headway.experiments.reproduce.configs import ReproduceConfig
from headway.experiments.reproduce.specs import ReproductionSpec
from headway.experiments.timing import Point


@dataclass(frozen=True, kw_only=True)
class ReproductionResult(RunResult):
    """Result of a run.

    Args:
        group: name of the compared runs, for example a model size.
        curve: scores along the way.
        seconds: wall-clock time of training and scoring.
        parameters: number beside the embeddings; None for a pretrained model.
    """

    group: str
    size: str
    n: int
    pauses: int
    curve: list[Point]
    seconds: float
    parameters: int | None = None

    def to_json(self) -> dict[str, Any]:
        values = {name: value for name, value in vars(self).items() if name not in ("metrics", "curve", "parameters")}
        if self.parameters is not None:
            values["parameters"] = self.parameters
        values["curve"] = [{"step": p.step, "seconds": p.seconds, "measures": p.metrics} for p in self.curve]
        return {**values, "measures": self.metrics}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ReproductionResult":
        curve = [Point(point["step"], point["measures"], point["seconds"]) for point in values["curve"]]
        others = {name: value for name, value in values.items() if name not in ("curve", "measures")}
        return cls(**others, curve=curve, metrics=values["measures"])


@dataclass(frozen=True)
class Reproduction:
    """All results of an experiment.

    Args:
        claim: the paper's, with section or table.
        specs: all runs.
        runs: finished runs by name.
        failures: failure reason by name of the run.
        answer: "reproduced" and so on, as of `headway.experiments.reproduce.summary.verdict`.
        sentence: the answer with counts.
        seconds: of the whole command.
    """

    title: str
    claim: str
    config: ReproduceConfig
    specs: list[ReproductionSpec]
    runs: dict[str, ReproductionResult]
    failures: dict[str, str]
    comparisons: list[Difference]
    answer: str
    sentence: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "experiment": self.config.EXPERIMENT,
            "title": self.title,
            "claim": self.claim,
            "settings": settings_json(self.config),
            "versions": {"headway": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
            "runs": [self._run_json(spec) for spec in self.specs],
            "comparisons": [_difference_json(difference) for difference in self.comparisons],
            "answer": self.answer,
            "sentence": self.sentence,
            "seconds": self.seconds,
            "training_seconds": sum(run.seconds for run in self.runs.values()),
        }

    def _run_json(self, spec: ReproductionSpec) -> dict[str, Any]:
        if spec.name in self.runs:
            return self.runs[spec.name].to_json()
        return {**asdict(spec), "group": spec.group, "error": self.failures[spec.name]}


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "group": difference.group,
        "measure": difference.metric.key,
        "arm": difference.arm,
        "baseline": difference.baseline,
        "pairs": len(difference.seeds),
        **as_json(difference.interval),
        "verdict": difference.verdict,
    }
