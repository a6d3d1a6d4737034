"""What became of each tensor: written, under this name or another, or left out for a reason. Nothing is lost silently."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from headway.errors import CheckpointError


@dataclass(frozen=True)
class TensorOutcome:
    """What became of one tensor: the names it was written under, or the reason why there is none."""

    name: str
    written: tuple[str, ...] = ()
    reason: str = ""  # of leaving it out


@dataclass(frozen=True)
class ConversionReport:
    """One fate for each tensor of a source."""

    fates: tuple[TensorOutcome, ...]

    @classmethod
    def of(
        cls, source: Iterable[str], fates: Iterable[TensorOutcome], present: Collection[str], where: str | Path
    ) -> "ConversionReport":
        """Close the books.

        Args:
            source: names of all tensors there were.
            fates: what was done with them.
            present: names of all tensors that there are now.
            where: what errors call the target.
        Raises: CheckpointError where a tensor of the source has no fate, or more than one, or is not there though it was
            written, or was left out without a reason, or where something stands in the target that comes from nowhere.
        """
        fates = tuple(fates)
        source, names = set(source), [fate.name for fate in fates]
        written = [name for fate in fates for name in fate.written]
        for wrong, what in (
            (source - set(names), "not accounted for"),
            (set(names) - source, "said to have been written, but never there"),
            ({name for name in names if names.count(name) > 1}, "accounted for twice"),
            ({fate.name for fate in fates if not fate.written and not fate.reason}, "left out for no reason"),
            (set(written) - set(present), "missing"),
            ({name for name in written if written.count(name) > 1}, "written by two tensors"),
            (set(present) - set(written), "of unknown origin"),
        ):
            if wrong:
                raise CheckpointError(f"{where}: {len(wrong)} tensors are {what}: {', '.join(sorted(wrong)[:3])}.")
        return cls(fates)

    @property
    def renamed(self) -> dict[str, tuple[str, ...]]:
        return {fate.name: fate.written for fate in self.fates if fate.written and fate.written != (fate.name,)}

    @property
    def left_out(self) -> dict[str, str]:
        return {fate.name: fate.reason for fate in self.fates if not fate.written}

    def __str__(self) -> str:
        same = len(self.fates) - len(self.renamed) - len(self.left_out)
        lines = [f"{same} tensors written under their names, {len(self.renamed)} under others, {len(self.left_out)} left out"]
        lines += [f"  left out: {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)
