"""Where examples come from: generated tasks, the standard library, local files, and hub ids through `datasets`."""

import difflib
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from headway.data.generated.stdlib import stdlib
from headway.data.generated.word_problems import word_problems
from headway.errors import DataError

Example = dict[str, Any]
Located = tuple[str, Mapping[str, Any]]  # a row, and where it stands, for messages
GENERATED = {"word-problems": 4000, "stdlib": None}
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")  # by file name
# what OpenAI's interfaces say of a text that ended because it was long enough; what does not end has no end to learn
CUT, CUT_OFF = "finish_reason", "length"
MIXTURES = (".yaml", ".yml")
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
    """Examples, each {"text"}, {"prompt", "completion"} or {"messages"}; the latter two with {"finish_reason": "length"} where the
    data says so.

    Args:
        source: "word-problems[:level]", "stdlib", "gsm8k", a local .jsonl[.gz|.xz], .parquet or .txt file (or a folder of
            them; where some are named after splits, such as train-00.jsonl, only those of the split asked), a mixture
            (.yaml, see `headway.data.mixtures`), or a hub id.
            GSM8K's columns, question and answer, become the prompt "Question: ...\\nAnswer:" that lm-eval uses.
        split: train, test or validation; a single local file is taken for whatever split is asked.
        limit: at most so many, from the start.
        columns: names used here -> names in the data, such as {"prompt": "input"}.
    Raises: DataError with file and line for a broken line, with the columns found for a missing one, and for no data.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit is {limit}, which leaves no examples. Ask for at least 1, or leave it out for all.")
    known = [name for names, _ in SHAPES for name in names]
    for name in columns or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise DataError(
                f"Columns are mapped as {{name here: name in the data}}, and {name!r} is no name here: it is one of "
                f"{', '.join(known)}." + (f" Did you mean {near[0]}?" if near else "")
            )
    if str(source).endswith(MIXTURES):
        from headway.data.mixtures import load_mixture  # which reads its sources with what is here

        if columns:
            raise DataError(f"{source} is a mixture: give each of its sources its own columns there.")
        return load_mixture(source, split, limit)
    rows = rows_of_source(str(source), split, limit)
    examples = []
    for place, row in rows:
        examples.append(example_of(place, row, columns))
        if limit is not None and len(examples) >= limit:
            break
    if not examples:
        raise DataError(f"{source} ({split}) has no examples. Point to a source that is not empty.")
    return examples


def load_rows(source: str | Path, split: str = "test") -> Iterator[Located]:
    """Rows of a data set with columns of its own, each with the place where it stands. Sources and errors as `load_examples`."""
    return iter(rows_of_source(str(source), split))


def rows_of_source(source: str, split: str, limit: int | None = None) -> Iterable[Located]:
    """Rows as the data has them, each with its place, for messages; a generated task makes `limit` of them, if it is given."""
    name, _, argument = source.partition(":")
    if name == "word-problems":
        if argument and not argument.isdigit():
            raise DataError(f"The level of word-problems is 1, 2 or 3, not {argument!r}.")
        return ((source, row) for row in word_problems(split, limit or GENERATED["word-problems"] or 0, int(argument or 1)))
    if name == "stdlib":
        return ((source, row) for row in stdlib(split))
    path = Path(source).expanduser()
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
    if not files:
        raise DataError(f"{folder} holds none of {', '.join(SUFFIXES)}.")
    named = {file: SPLITS[name] for file in files if (name := file.name.split(".")[0].split("-")[0]) in SPLITS}
    if not named:
        return files
    of_split = [file for file in files if named.get(file) == SPLITS.get(split, split)]
    if not of_split:  # all of them would mix what is learnt with what it is measured on
        raise DataError(f"{folder} has files of {', '.join(sorted(set(named.values())))}, and none of {split!r}.")
    return of_split


def _read(path: Path) -> Iterator[Located]:
    """The rows of a file with their places. Raises DataError where it cannot be read to its end."""
    import pyarrow  # installed with datasets

    place = str(path)
    try:
        for place, row in _parsed(path):
            yield place, row
    except (OSError, EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is damaged or cannot be read (last good: {place}): {error}") from error


def _parsed(path: Path) -> Iterator[Located]:
    if path.name.endswith(".txt"):
        yield str(path), {"text": _decoded(path.read_bytes(), str(path))}
    elif path.name.endswith(".parquet"):
        import pyarrow.parquet as parquet

        for number, row in enumerate(parquet.read_table(path).to_pylist(), 1):
            yield f"{path}, row {number}", row
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz")):
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                place = f"{path}, line {number}"
                if not (text := _decoded(line, place).strip()):
                    continue
                try:
                    row = json.loads(text)
                except json.JSONDecodeError as error:
                    raise DataError(f"{place} is not JSON: {error.msg} at column {error.colno}.") from error
                if not isinstance(row, dict):
                    raise DataError(f"{place} is a {type(row).__name__}, not an object with columns.")
                yield place, row
    else:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}.")


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8-sig")  # a byte order mark is no part of the text
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8: byte {raw[error.start]:#04x} at {error.start}.") from error


def _open(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(path, "rb"))
    return open(path, "rb")


def _hub(name: str, split: str) -> Iterable[Located]:
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, configuration or ("main" if repository.endswith("gsm8k") else None), split=split)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name!r} is no file here, no generated task ({', '.join(GENERATED)}), and cannot be fetched from the hub: {error}"
        ) from error
    return ((f"{name}, row {number}", row) for number, row in enumerate(rows, 1))


def example_of(place: str, row: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> Example:
    """A row as an example, by the columns that it has. Raises DataError where they mean nothing."""
    if columns:
        if missing := [name for name in columns.values() if name not in row]:
            raise DataError(f"{place} has no column {missing[0]!r}; it has: {', '.join(row)}.")
        row = {name: row[column] for name, column in columns.items()}
    for names, shape in SHAPES:
        if all(name in row for name in names):
            if names != ("messages",) and (wrong := [name for name in names if not isinstance(row[name], str)]):
                raise DataError(f"{place}: column {wrong[0]!r} is {type(row[wrong[0]]).__name__}, not text.")
            if names == ("messages",) and not _is_chat(row["messages"]):
                raise DataError(f"{place}: column 'messages' is not a list of objects with role and content.")
            return shape(row) | ({CUT: CUT_OFF} if row.get(CUT) == CUT_OFF and names != ("text",) else {})
    wanted = "; ".join(" and ".join(names) for names, _ in SHAPES)
    raise DataError(
        f"{place} has the columns {', '.join(row) or 'none'}, but one of these is needed: {wanted}. Map them with --columns."
    )


def _is_chat(messages: Any) -> bool:
    return isinstance(messages, list) and bool(messages) and all(isinstance(m, dict) and "role" in m for m in messages)
