"""Where examples come from: generated tasks, the standard library, local files, and hub ids through `datasets`."""

import difflib
import gzip
import json
import lzma
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from headway.data.stdlib import stdlib
from headway.data.word_problems import word_problems
from headway.errors import DataError

Example = dict[str, Any]
GENERATED = {"word-problems": 4000, "stdlib": None}
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet", ".txt")
# columns that mean something, in order of preference, and what they become
SHAPES: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Example]], ...] = (
    (("messages",), lambda row: {"messages": row["messages"]}),
    (("prompt", "completion"), lambda row: {"prompt": row["prompt"], "completion": row["completion"]}),
    (
        ("question", "answer"),
        lambda row: {"prompt": f"Question: {row['question']}\nAnswer:", "completion": f" {row['answer']}"},
    ),
    (("text",), lambda row: {"text": row["text"]}),
)


def load_examples(
    source: str | Path, split: str = "train", limit: int | None = None, columns: Mapping[str, str] | None = None
) -> list[Example]:
    """Examples, each {"text"}, {"prompt", "completion"} or {"messages"}.

    Args:
        source: "word-problems[:level]", "stdlib", "gsm8k", a local .jsonl[.gz|.xz], .parquet or .txt file (or a folder of
            them, where a file named after the split is taken if there is one), or a hub id. GSM8K's columns, question and
            answer, become the prompt "Question: ...\\nAnswer:" that lm-eval uses.
        split: train, test or validation; a single local file is taken for whatever split is asked.
        limit: at most so many, from the start.
        columns: names used here -> names in the data, such as {"prompt": "input"}.
    Raises: DataError with file and line for a broken line, with the columns found for a missing one, and for no data.
    """
    rows = _rows(str(source), split, limit)
    examples = []
    for place, row in rows:
        examples.append(_example(place, row, columns))
        if limit is not None and len(examples) >= limit:
            break
    if not examples:
        raise DataError(f"{source} ({split}) has no examples. Point to a source that is not empty.")
    return examples


def _rows(source: str, split: str, limit: int | None) -> Iterable[tuple[str, Mapping[str, Any]]]:
    name, _, argument = source.partition(":")
    if name == "word-problems":
        if argument and not argument.isdigit():
            raise DataError(f"The level of word-problems is 1, 2 or 3, not {argument!r}.")
        return ((source, row) for row in word_problems(split, limit or GENERATED["word-problems"] or 0, int(argument or 1)))
    if name == "stdlib":
        return ((source, row) for row in stdlib(split))
    path = Path(source)
    if path.is_dir():
        return (row for file in _files(path, split) for row in _read(file))
    if path.is_file():
        return _read(path)
    if source.endswith(SUFFIXES) or source.startswith((".", "/", "~")):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], 1) if path.parent.is_dir() else []
        raise DataError(f"There is no file {source}." + (f" Did you mean {path.parent / near[0]}?" if near else ""))
    return _hub("openai/gsm8k" if source == "gsm8k" else source, split)


def _files(folder: Path, split: str) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIXES))
    of_split = [file for file in files if file.name.split(".")[0].split("-")[0] == split]
    if not files:
        raise DataError(f"{folder} holds none of {', '.join(SUFFIXES)}.")
    return of_split or files


def _read(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if path.name.endswith(".txt"):
        yield str(path), {"text": path.read_text(encoding="utf-8")}
    elif path.name.endswith(".parquet"):
        import pyarrow.parquet as parquet  # installed with datasets

        for number, row in enumerate(parquet.read_table(path).to_pylist(), 1):
            yield f"{path}, row {number}", row
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz")):
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}.") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number} is a {type(row).__name__}, not an object with columns.")
                yield f"{path}, line {number}", row
    else:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}.")


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    if path.name.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8")
    return open(path, encoding="utf-8")


def _hub(name: str, split: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, configuration or ("main" if repository.endswith("gsm8k") else None), split=split)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name!r} is no file here, no generated task ({', '.join(GENERATED)}), and cannot be fetched from the hub: {error}"
        ) from error
    return ((f"{name}, row {number}", row) for number, row in enumerate(rows, 1))


def _example(place: str, row: Mapping[str, Any], columns: Mapping[str, str] | None) -> Example:
    if columns:
        if missing := [name for name in columns.values() if name not in row]:
            raise DataError(f"{place} has no column {missing[0]!r}; it has: {', '.join(row)}.")
        row = {name: row[column] for name, column in columns.items()}
    for names, shape in SHAPES:
        if all(name in row for name in names):
            if names != ("messages",) and (wrong := [name for name in names if not isinstance(row[name], str)]):
                raise DataError(f"{place}: column {wrong[0]!r} is {type(row[wrong[0]]).__name__}, not text.")
            return shape(row)
    wanted = "; ".join(" and ".join(names) for names, _ in SHAPES)
    raise DataError(
        f"{place} has the columns {', '.join(row) or 'none'}, but one of these is needed: {wanted}. Map them with --columns."
    )
