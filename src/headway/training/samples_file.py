"""File of samples that is written while sampling runs and appears only when complete.

Samples end in any order and are appended to FILE.unfinished. Once complete, FILE gets all samples in the order of the prompts.
A process may be killed at any moment: half a line is ignored, and missing samples are drawn again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from headway.errors import ConfigError, HeadwayError
from headway.files import replacing_file, write_json

Key = tuple[int, int]  # number of the prompt, number of the sample


class Samples:
    """Samples of a run.

    Args:
        path: the complete file. Settings are written beside the file.
        settings: all settings that samples depend on, as JSON.
        resume: keep earlier samples of the same settings. False deletes all samples.
    Raises:
        ConfigError: the file has samples of other settings, or does not come from Headway.
        HeadwayError: the disk is full or read-only.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool = True) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.partial_file = path.with_name(f"{path.name}.unfinished")
        self.settings_file = path.with_name(f"{path.name}.settings.json")
        self.offsets: dict[Key, int] = {}  # byte offset of each sample's line
        self.tokens = self.cut_off = 0
        self.file: BinaryIO | None = None
        if path.is_file() and not self.settings_file.is_file():
            raise ConfigError(f"{path} exists, and no settings of samples stand beside it: choose another output_file.")
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
            raise self._disk_error(error) from error

    def __contains__(self, key: Key) -> bool:
        return key in self.offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, sample: Mapping[str, Any]) -> None:
        """Append a sample: a mapping that JSON can hold, with `number`, `sample`, `tokens` and `finish_reason`."""
        assert self.file is not None
        try:
            offset = self.file.tell()
            self.file.write((json.dumps(sample, ensure_ascii=False) + "\n").encode())
            self.file.flush()
        except OSError as error:
            raise self._disk_error(error) from error
        self._count(sample, offset)

    def finish(self) -> None:
        """Write the complete file in order and delete the partial file."""
        if not self.complete:
            write_json(self.settings_file, self.settings)
            with self.partial_file.open("rb") as lines, replacing_file(self.path) as file:
                for _, offset in sorted(self.offsets.items()):
                    lines.seek(offset)
                    file.write(lines.readline())
        self.close()
        self.partial_file.unlink(missing_ok=True)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _open(self) -> None:
        """Read the partial file up to the first incomplete line, and append from there."""
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
        """Count the complete lines from byte `start` on. Returns the byte offset of their end."""
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if (sample := _parsed(line)) is None:
                    break
                self._count(sample, start)
                start += len(line)
        return start

    def _count(self, sample: Mapping[str, Any], offset: int) -> None:
        self.offsets[sample.get("number", -1), sample.get("sample", offset)] = offset  # a finished file may have been edited
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

    def _disk_error(self, error: OSError) -> HeadwayError:
        return HeadwayError(f"Cannot write {self.path}: {error.strerror or error}. Free some space, then run again.")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The sample of a line; None for an incomplete line."""
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found if line.endswith(b"\n") else None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
