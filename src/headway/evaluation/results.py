"""Results of tasks, and the JSON form of results."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.decoding import DecodeStats
from headway.evaluation.benchmarks.quantization_effect import QuantizationEffect
from headway.evaluation.benchmarks.speed import SpeedResult
from headway.model import HeadwayModel

INLINE = {"inline": True}  # metadata of a field whose keys stand beside the others in the JSON form


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Result of a task on a model. Subclasses add the scores."""

    model: str
    task: str
    quantized: QuantizationEffect | None = None  # with --quantize
    speed: SpeedResult | None = None  # once timed


@dataclass(frozen=True)
class Scored:
    """Result of a task, with the model and the prompts to time the heads on. Without prompts, nothing is timed."""

    result: TaskResult
    model: HeadwayModel | None = None
    prompts: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class DecodingSummary:
    """Cost of generating the answers of a task."""

    tokens: int
    tokens_per_forward: float
    acceptance: tuple[float, ...]  # per-position acceptance rate
    seconds: float  # wall-clock time
    tokens_per_second: float

    @classmethod
    def of(cls, stats: DecodeStats, seconds: float) -> "DecodingSummary | None":
        """Summary of the statistics, or None if nothing was generated."""
        if not stats.tokens:
            return None
        return cls(stats.tokens, stats.tokens_per_forward, stats.acceptance, seconds, stats.tokens / seconds)


def as_json(value: Any) -> Any:
    """Dataclasses as dictionaries, paths as text, tuples as lists. A field with the default None is left out when None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries: dict[str, Any] = {}
        for item in dataclasses.fields(value):
            inner = getattr(value, item.name)
            if item.metadata == INLINE:
                entries |= as_json(inner) or {}
            elif inner is not None or item.default is not None:
                entries[item.name] = as_json(inner)
        return entries
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
