"""Stand-in for `headway.experiments.reproduce.training`: no training, and arm n=2 of seed 0 fails the first time, or always."""

import os
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError

METRICS = {"in domain": 0.5, "out of domain": 0.5, "m=1": 0.5, "m=2": 0.5, "m=3": 0.5}


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    if os.environ.get("ALWAYS_FAIL"):
        raise HeadwayError("The loss became nan by step 3.")
    attempts = folder / "attempts"
    attempts.write_text(attempts.read_text() + "again " if attempts.is_file() else "first ")
    if spec["n"] == 2 and spec["seed"] == 0 and attempts.read_text() == "first ":
        raise RuntimeError("out of memory")
    shared = {name: spec[name] for name in ("arm", "size", "seed", "n", "pauses")}
    curve = [{"step": 4, "seconds": 1.0, "measures": METRICS}]
    return {**shared, "group": spec["size"], "curve": curve, "measures": METRICS, "seconds": 1.0}
