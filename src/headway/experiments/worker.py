"""Process of a run: `python -m headway.experiments.worker MODULE FOLDER` reads FOLDER/run.json and writes FOLDER/result.json.

MODULE belongs to an experiment. The function MODULE.run(spec, folder) returns the result as JSON values. With a process per run,
memory and errors of a run do not reach the remaining runs.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError
from headway.files import write_json

SPEC, RESULT = "run.json", "result.json"
PROGRESS = "progress"  # share of the training steps that are done, as text

Run = Callable[[dict[str, Any], Path], dict[str, Any]]


def work(run: Run, folder: Path) -> int:
    """Call `run` and write the result. The exit code is 0, 2 after a HeadwayError, or 130 after Ctrl-C.

    Args:
        run: takes the spec of the folder, and the folder.
        folder: holds run.json.
    """
    threading.Thread(target=_exit_after, args=(os.getppid(),), daemon=True).start()
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    try:
        result = run(spec, folder)
    except HeadwayError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    write_json(folder / RESULT, {"run": spec, "result": result})
    return 0


def _exit_after(parent: int) -> None:
    """End this process after its parent. Without a parent, the next command would start the same run a second time."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(work(import_module(sys.argv[1]).run, Path(sys.argv[2])))
