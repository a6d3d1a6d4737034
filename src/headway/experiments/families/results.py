"""Results of a comparison of families, and their JSON form."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from headway.evaluation.benchmarks.drafting import DraftingResult
from headway.evaluation.results import as_json
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.published import PUBLISHED, PublishedResult
from headway.experiments.metrics import Metric, RunResult
from headway.experiments.output import settings_json

VARIANTS = ("adaptive", "chain", "tree")


def short_count(number: float) -> str:
    """1500 as 1.5k."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"


# A further metric takes one line here, and a value in `headway.experiments.families.training.measure`.
COST = (
    Metric("parameters", "parameters", higher_is_better=False, format=short_count),
    Metric("unembedding_parameters", "unembeddings", higher_is_better=False, format=short_count),
    Metric("steps", "steps", format="{:.0f}"),
    Metric("seconds", "seconds", higher_is_better=False, format="{:.1f}"),
    Metric("step_seconds", "ms/step", higher_is_better=False, format=lambda seconds: f"{1000 * seconds:.0f}"),
    Metric("memory_mib", "MiB", higher_is_better=False, format="{:.0f}"),
)
HELD_OUT = (
    Metric("head_losses", "heads", higher_is_better=False, format="{:.2f}", unit="nats"),
    Metric("agreement", "agreement %", format=lambda share: f"{100 * share:.0f}"),
    Metric("accuracy", "accuracy %", format=lambda share: f"{100 * share:.0f}", wide_only=True),
)


@dataclass(frozen=True, kw_only=True)
class FamilyResult(RunResult):
    """Result of a run.

    Args:
        arm: label of the family.
        metrics: figures of COST and HELD_OUT, `trunk_loss`, and sizes.
        family: head family; None without heads.
        device: device of the run.
        dtype: dtype of the trunk.
        prompts: number of prompts that decoding continued.
        trained: settings of the training command that differ between families; None for the untrained trunk.
        decoding: by temperature and variant.
    """

    device: str
    dtype: str
    prompts: int
    family: str | None = None
    trained: dict[str, Any] | None = None
    decoding: dict[str, dict[str, DraftingResult]] | None = None

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = as_json(self)
        return {"label": values.pop("arm"), **values}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FamilyResult":
        names = {item.name for item in fields(cls)}
        values = {"arm": values["label"], **{name: value for name, value in values.items() if name != "label"}}
        known = {name: value for name, value in values.items() if name in names}
        if known.get("decoding") is not None:
            known["decoding"] = {
                temperature: {variant: DraftingResult(**found) for variant, found in variants.items()}
                for temperature, variants in known["decoding"].items()
            }
        return cls(**known, metrics={name: value for name, value in values.items() if name not in names})

    def variants(self, temperature: str) -> dict[str, DraftingResult]:
        return (self.decoding or {}).get(temperature, {})


@dataclass(frozen=True)
class FamiliesComparison:
    """All results of a comparison of families.

    Args:
        families: labels, failed families included.
        temperatures: as text, keys of `decoding`.
        trunk: scores of the trunk before training.
        alone: with --joint, runs without heads.
        failures: reason by label and seed.
        seconds: of the whole command.
    """

    title: str
    config: HeadsCompareConfig
    families: list[str]
    temperatures: list[str]
    trunk: FamilyResult
    alone: list[FamilyResult]
    runs: list[FamilyResult]
    failures: dict[str, str]
    seconds: float
    published: Sequence[PublishedResult] = field(default=PUBLISHED)

    def by_family(self) -> dict[str, list[FamilyResult]]:
        """Runs by label. A failed family has none."""
        return {label: [run for run in self.runs if run.arm == label] for label in self.families}

    def finished(self) -> dict[str, list[FamilyResult]]:
        """Runs by label, without failed families."""
        return {label: runs for label, runs in self.by_family().items() if runs}

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "settings": settings_json(self.config),
            "families": self.families,
            "temperatures": self.temperatures,
            "trunk": self.trunk.to_json(),
            "alone": [run.to_json() for run in self.alone],
            "runs": [run.to_json() for run in self.runs],
            "failures": self.failures,
            "published": [as_json(asdict(result)) for result in self.published],
            "seconds": self.seconds,
        }

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows of the Parquet file, per run and temperature. Columns begin with the variant, for example `chain_acceptance`."""
        rows = []
        for run in self.runs:
            values = run.to_json()
            shared = {name: value for name, value in values.items() if name not in ("decoding", "trained")}
            shared |= {"trunk_loss_before": self.trunk.metrics["trunk_loss"], **values["trained"]}
            for temperature, variants in values["decoding"].items():
                named = {f"{variant}_{name}": value for variant, found in variants.items() for name, value in found.items()}
                rows.append({**shared, "temperature": float(temperature), **named})
        return rows
