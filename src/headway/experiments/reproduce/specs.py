"""Specs of the runs of a reproduced experiment."""

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import headway.config
from headway.experiments.reproduce.configs import EXPERIMENTS, ReproduceConfig

# settings that may differ between commands without changing a run
NOT_OF_A_RUN = ("output_dir", "seeds", "seed", "tokens", "sizes", "pauses", "threads")


@dataclass(frozen=True)
class ReproductionSpec:
    """Spec of a training run.

    Args:
        arm: name of the arm.
        size: size of the model, or another setting that all compared arms share.
        seed: seed of weights and data.
        n: number of predicted tokens.
        pauses: number of pause tokens.
    """

    arm: str
    size: str
    seed: int
    n: int = 1
    pauses: int = 0

    @property
    def group(self) -> str:
        """Name of the compared runs."""
        return self.size if not self.pauses else f"{self.size}, {self.pauses} pauses"

    @property
    def name(self) -> str:
        """Folder name."""
        return "-".join(re.findall(r"[\w.]+", f"{self.group} {self.arm.replace('=', '')} {self.seed}"))

    def to_json(self, config: ReproduceConfig) -> dict[str, Any]:
        """Spec with all settings that the result depends on.

        Args:
            config: resolved settings of the experiment.
        """
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}
        settings = {name: value for name, value in settings.items() if name not in NOT_OF_A_RUN}
        return {"experiment": config.EXPERIMENT, **asdict(self), "settings": settings}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "tuple[ReproductionSpec, ReproduceConfig]":
        """Spec and settings of a run."""
        config = headway.config.build(EXPERIMENTS[values["experiment"]], values["settings"], "settings").resolved()
        return cls(**{item.name: values[item.name] for item in fields(cls)}), config
