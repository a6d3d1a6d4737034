"""A file of samples that grows while they are drawn, and takes its place only when it is whole.

Samples end in any order. Each is appended to FILE.unfinished as it ends; once all are there, they are put in the order of their
prompts into FILE. A process may be killed at any moment: half a line is no line, and what is missing is drawn again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from headway.errors import ConfigError, HeadwayError
from headway.files import replacing_file, write_json

Key = tuple[int, int]  # number of the prompt, number of the sample


class Samples:
    """Args:
        path: where the whole file goes; its settings are written beside it.
        settings: all that samples depend on, as JSON.
        resume: keep what is there; else delete it.
    Raises: ConfigError where samples of other settings are there already, or a file that is none of ours;
        HeadwayError where the disk or the rights do not allow it.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool = True) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.partial_file = path.with_name(f"{path.name}.unfinished")
        self.settings_file = path.with_name(f"{path.name}.settings.json")
        self.offsets: dict[Key, int] = {}  # where the line of a sample begins
        self.tokens = self.cut_off = 0
        self.file: BinaryIO | None = None
        if path.is_file() and not self.settings_file.is_file():
            raise ConfigError(
                f"{path} exists, and nothing beside it says that samples were written there: choose another output_file."
            )
        try:
            if not resume:
                for file in (self.path, self.partial_file, self.settings_file):
                    file.unlink(missing_ok=True)
            self.complete = self.path.is_file()
            if self.complete:
                settings = json.loads(self.settings_file.read_text(encoding="utf-8"))
                if settings != self.settings:
                    self._refuse(self.path, settings)
                self._read(self.path, 0)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._open()
        except OSError as error:
            raise self._explained(error) from error

    def __contains__(self, key: Key) -> bool:
        return key in self.offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, sample: Mapping[str, Any]) -> None:
        """Append one: a mapping that JSON can hold, with `number`, `sample`, `tokens` and `finish_reason`."""
        assert self.file is not None
        try:
            place = self.file.tell()
            self.file.write((json.dumps(sample, ensure_ascii=False) + "\n").encode())
            self.file.flush()
        except OSError as error:
            raise self._explained(error) from error
        self._count(sample, place)

    def save_run(self) -> None:
        """Put all into the file, in order, and clear away what was beside it."""
        if not self.complete:
            write_json(self.settings_file, self.settings)
            with self.partial_file.open("rb") as lines, replacing_file(self.path) as file:
                for _, place in sorted(self.offsets.items()):
                    lines.seek(place)
                    file.write(lines.readline())
        self.close()
        self.partial_file.unlink(missing_ok=True)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _open(self) -> None:
        """Read what is there up to the first line that is not whole, and go on behind it."""
        heading = (json.dumps({"settings": self.settings}, ensure_ascii=False) + "\n").encode()
        self.partial_file.touch()
        self.file = self.partial_file.open("rb+")
        first = self.file.readline()
        if (before := _parsed(first)) is None:
            self.file.seek(0)
            self.file.write(heading)
            end = len(heading)
        else:
            if before != {"settings": self.settings}:
                self._refuse(self.partial_file, before["settings"])
            end = self._read(self.partial_file, len(first))
        self.file.truncate(end)
        self.file.seek(end)

    def _read(self, path: Path, start: int) -> int:
        """Count the whole lines from `start` on; returns where they end."""
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if (sample := _parsed(line)) is None:
                    break
                self._count(sample, start)
                start += len(line)
        return start

    def _count(self, sample: Mapping[str, Any], place: int) -> None:
        self.offsets[sample.get("number", -1), sample.get("sample", place)] = place  # a finished file may have been edited
        self.tokens += sample.get("tokens", 0)
        self.cut_off += sample.get("finish_reason") == "length"

    def _refuse(self, path: Path, before: Mapping[str, Any]) -> None:
        names = [name for name in self.settings if before.get(name) != self.settings[name]]
        names += [name for name in before if name not in self.settings]
        different = "; ".join(f"{name}: {_short(before.get(name))}, not {_short(self.settings.get(name))}" for name in names)
        raise ConfigError(
            f"{path} has samples of other settings ({different}). "
            "Use the same settings, another output_file, or --no-resume to start over."
        )

    def _explained(self, error: OSError) -> HeadwayError:
        return HeadwayError(f"Cannot write {self.path}: {error.strerror or error}. Free some space, then run again.")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None where a line is not whole."""
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found if line.endswith(b"\n") else None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
