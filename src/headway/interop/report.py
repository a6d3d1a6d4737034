"""Outcome of every tensor of a conversion: written, renamed, or left out for a reason. No tensor is lost silently."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from headway.errors import CheckpointError


@dataclass(frozen=True)
class TensorOutcome:
    """Names that a tensor was written under, or the reason for leaving the tensor out."""

    name: str
    written: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class ConversionReport:
    """One outcome per tensor of the source."""

    outcomes: tuple[TensorOutcome, ...]

    @classmethod
    def from_outcomes(
        cls, source: Iterable[str], outcomes: Iterable[TensorOutcome], present: Collection[str], where: str | Path
    ) -> "ConversionReport":
        """Report of outcomes that were checked against source and target.

        Args:
            source: names of all tensors of the source.
            outcomes: one per tensor of the source.
            present: names of all tensors in the target.
            where: name of the target in errors.
        Raises:
            CheckpointError: a tensor of the source has no outcome or several, was left out without a reason, or is missing from the
                target; or a tensor of the target has no source.
        """
        outcomes = tuple(outcomes)
        source, names = set(source), [outcome.name for outcome in outcomes]
        written = [name for outcome in outcomes for name in outcome.written]
        for wrong, what in (
            (source - set(names), "not accounted for"),
            (set(names) - source, "said to have been written, but never there"),
            ({name for name in names if names.count(name) > 1}, "accounted for twice"),
            ({outcome.name for outcome in outcomes if not outcome.written and not outcome.reason}, "left out for no reason"),
            (set(written) - set(present), "missing"),
            ({name for name in written if written.count(name) > 1}, "written by two tensors"),
            (set(present) - set(written), "of unknown origin"),
        ):
            if wrong:
                raise CheckpointError(f"{where}: {len(wrong)} tensors are {what}: {', '.join(sorted(wrong)[:3])}.")
        return cls(outcomes)

    @property
    def renamed(self) -> dict[str, tuple[str, ...]]:
        """Names on disk of tensors written under another name."""
        return {o.name: o.written for o in self.outcomes if o.written and o.written != (o.name,)}

    @property
    def left_out(self) -> dict[str, str]:
        """Reasons of tensors left out."""
        return {outcome.name: outcome.reason for outcome in self.outcomes if not outcome.written}

    def __str__(self) -> str:
        unchanged = len(self.outcomes) - len(self.renamed) - len(self.left_out)
        lines = [f"{unchanged} tensors written under their names, {len(self.renamed)} under others, {len(self.left_out)} left out"]
        lines += [f"  left out: {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)
