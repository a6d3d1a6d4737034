"""Log of answers: a line an answer, written at once. A repeated command continues after an interruption."""

import hashlib
import json
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError


class AnswerLog:
    """Answers by key, in memory and, with a path, in a file of JSON lines.

    Unreadable lines are ignored, for example a line half written during a power failure.

    Raises:
        HeadwayError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        try:
            if path is not None and path.is_file():
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    self._read(line)
        except OSError as error:
            raise HeadwayError(f"cannot read {path}: {error.strerror or error}.") from error

    def add(self, entries: dict[str, str]) -> None:
        """Add answers by key, in memory and at the end of the file."""
        self.texts |= entries
        if self.path is None or not entries:
            return
        lines = "".join(json.dumps({"key": key, "text": text}, ensure_ascii=True) + "\n" for key, text in entries.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                cut_off = file.tell() > 0 and (file.seek(-1, 2), file.read(1))[1] != b"\n"
                file.write((("\n" if cut_off else "") + lines).encode())
        except OSError as error:
            raise HeadwayError(f"cannot write {self.path}: {error.strerror or error}. Free some space, then run again.") from error

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.texts[str(entry["key"])] = str(entry["text"])
        except (json.JSONDecodeError, KeyError, TypeError):
            return


def answer_key(*parts: Any) -> str:
    """A short key for all settings and tokens that determine an answer."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def fingerprint(folder: str) -> list[Any]:
    """Identity of the weights in a local folder: name, size and modification time of every file."""
    files = sorted(Path(folder).glob("*.safetensors"))
    return [folder, *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)]
