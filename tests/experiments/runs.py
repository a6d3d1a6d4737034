"""An experiment without training, for tests of the runner: the spec says how a run ends."""

import os
import time
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    attempts = folder / "attempts"
    attempts.write_text(attempts.read_text() + "." if attempts.is_file() else ".")
    attempt = len(attempts.read_text())
    if "kill" in spec:
        os.kill(os.getpid(), 9)
    if "error" in spec:
        raise HeadwayError(spec["error"])
    if "crash" in spec or (spec.get("fail_first") and attempt == 1):
        raise ValueError(spec.get("crash", "the first time"))
    try:
        time.sleep(spec.get("sleep", 0.0))
    except KeyboardInterrupt:
        (folder / "saved").touch()
        raise
    return {"threads": os.environ["OMP_NUM_THREADS"], "attempt": attempt}
