"""Source of the Python standard library: a real code corpus on every machine."""

import hashlib
import sysconfig
from pathlib import Path

from headway.errors import DataError

SPLITS = {"train": False, "test": True, "validation": True}  # held out or not
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "pydoc_data",
    "turtledemo",
}


def stdlib(split: str) -> list[dict[str, str]]:
    """One row with a text for each module, ordered by path. The hash of the path holds out one module in twenty.

    Raises:
        DataError: the split is none of train, test and validation (the same as test).
    """
    if split not in SPLITS:
        raise DataError(f"The standard library has the splits {', '.join(SPLITS)}, not {split!r}.")
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if SKIPPED.isdisjoint(name.parts) and _is_test(name.as_posix()) == SPLITS[split]:
            found.append({"text": path.read_text(encoding="utf-8", errors="replace")})
    return found


def _is_test(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % 20 == 0
