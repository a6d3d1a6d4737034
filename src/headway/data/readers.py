"""Readers: rows with their locations, from generated tasks, the standard library, local files, and hub ids through `datasets`."""

import difflib
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from headway.data.examples import Row
from headway.data.generated.stdlib import stdlib
from headway.data.generated.word_problems import word_problems
from headway.errors import DataError

Located = tuple[str, Row]  # (location, row); the location is for error messages
NUM_PROBLEMS = 4000  # word problems to generate without a limit
GENERATED = ("word-problems", "stdlib")
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")  # by file name
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet", ".txt")


def load_rows(source: str | Path, split: str = "test", limit: int | None = None) -> Iterator[Located]:
    """Rows of a source with the data's own columns and with locations.

    Args:
        source: as `headway.data.load_examples`, except a mixture.
        split: train, test or validation.
        limit: number of problems of a generated task; no limit for files and hub data.
    Raises:
        DataError: the source does not exist, lacks the split, or has a broken line.
    """
    source = str(source)
    name, _, argument = source.partition(":")
    if name == "word-problems":
        if argument and not argument.isdigit():
            raise DataError(f"The level of word-problems is 1, 2 or 3, not {argument!r}.")
        return ((source, row) for row in word_problems(split, limit or NUM_PROBLEMS, int(argument or 1)))
    if name == "stdlib":
        return ((source, row) for row in stdlib(split))
    path = Path(source).expanduser()
    if path.is_dir():
        return (row for file in _files_of_split(path, split) for row in _read_file(file))
    if path.is_file():
        return _read_file(path)
    if source.endswith(SUFFIXES) or source.startswith((".", "/", "~")):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], 1) if path.parent.is_dir() else []
        raise DataError(f"There is no file {source}." + (f" Did you mean {path.parent / near[0]}?" if near else ""))
    return _read_hub("openai/gsm8k" if source == "gsm8k" else source, split)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """The files of a split, by name, or all files if no file is named after a split."""
    files = sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIXES))
    if not files:
        raise DataError(f"{folder} has no files of the types {', '.join(SUFFIXES)}.")
    splits = {file: SPLITS[name] for file in files if (name := file.name.split(".")[0].split("-")[0]) in SPLITS}
    if not splits:
        return files
    of_split = [file for file in files if splits.get(file) == SPLITS.get(split, split)]
    if not of_split:  # all files together would mix training data with test data
        raise DataError(f"{folder} has files of {', '.join(sorted(set(splits.values())))}, and none of {split!r}.")
    return of_split


def _read_file(path: Path) -> Iterator[Located]:
    """Rows of a file with locations. Raises DataError if the file cannot be read to the end."""
    import pyarrow  # slow to import; comes with datasets

    location = str(path)
    try:
        for location, row in _parse_file(path):
            yield location, row
    except (OSError, EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is damaged or cannot be read (last good: {location}): {error}") from error


def _parse_file(path: Path) -> Iterator[Located]:
    if path.name.endswith(".txt"):
        yield str(path), {"text": _decode(path.read_bytes(), str(path))}
    elif path.name.endswith(".parquet"):
        import pyarrow.parquet as parquet

        for number, row in enumerate(parquet.read_table(path).to_pylist(), 1):
            yield f"{path}, row {number}", row
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz")):
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                location = f"{path}, line {number}"
                if text := _decode(line, location).strip():
                    yield location, _parse_line(text, location)
    else:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}.")


def _parse_line(text: str, location: str) -> Row:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{location} is not JSON: {error.msg} at column {error.colno}.") from error
    if not isinstance(row, dict):
        raise DataError(f"{location} is a {type(row).__name__}, not an object with columns.")
    if "\\ud" in text.lower():  # JSON can escape halves of a surrogate pair, and a tokenizer refuses a half without its partner
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise DataError(f"{location} has text that is not Unicode: {half} is one half of a surrogate pair.") from error
    return row


def _decode(raw: bytes, location: str) -> str:
    try:
        return raw.decode("utf-8-sig")  # without a byte order mark
    except UnicodeDecodeError as error:
        raise DataError(f"{location} is not UTF-8: byte {raw[error.start]:#04x} at {error.start}.") from error


def _open(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(path, "rb"))
    return open(path, "rb")


def _read_hub(name: str, split: str) -> Iterator[Located]:
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, configuration or ("main" if repository.endswith("gsm8k") else None), split=split)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name!r} is no local file, no generated task ({', '.join(GENERATED)}), and cannot be fetched from the hub: {error}"
        ) from error
    return ((f"{name}, row {number}", row) for number, row in enumerate(rows, 1))
