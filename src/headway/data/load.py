"""Examples of a named source: rows of a reader, turned into examples by column names, or a mixture of sources."""

import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path

from headway.data.examples import COLUMNS, Chat, Example, example_of, unused_columns
from headway.data.mixtures import MIXTURES, load_mixture
from headway.data.readers import load_rows
from headway.errors import DataError


def load_examples(
    source: str | Path, split: str = "train", limit: int | None = None, columns: Mapping[str, str] | None = None
) -> list[Example]:
    """Examples of a source, in the order of the data. A warning names the columns without a use.

    Args:
        source: "word-problems[:level]", "stdlib", "gsm8k", a local .jsonl[.gz|.xz], .parquet or .txt file, a folder of
            files, a mixture (.yaml, see `headway.data.mixtures`), or a hub id. If some files of a folder are named after
            splits, for example train-00.jsonl, only the files of `split` are read. GSM8K's columns, question and answer, become
            the prompt "Question: ...\\nAnswer:" of lm-eval.
        split: train, test or validation; a single local file serves as any split.
        limit: maximum number of examples, from the start.
        columns: names used here -> names in the data, for example {"prompt": "input"}.
    Raises:
        DataError: a line is broken (with file and line), a column is missing (with the columns found), or no data is there.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit is {limit}, which leaves no examples. Ask for at least 1, or leave it out for all.")
    for name in columns or {}:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1)
            raise DataError(
                f"Columns are mapped as {{name here: name in the data}}, and {name!r} is no name here: it is one of "
                f"{', '.join(COLUMNS)}." + (f" Did you mean {near[0]}?" if near else "")
            )
    if str(source).endswith(MIXTURES):
        if columns:
            raise DataError(f"{source} is a mixture: give each of its sources its own columns there.")
        return load_mixture(source, split, limit)
    examples: list[Example] = []
    unused: dict[str, None] = {}  # a set in the order of the data
    for location, row in load_rows(source, split, limit):
        examples.append(example_of(location, row, columns))
        if not columns and not isinstance(examples[-1], Chat):  # a chat template names the columns that it renders
            unused |= dict.fromkeys(unused_columns(row))
        if len(examples) == limit:
            break
    if not examples:
        raise DataError(f"{source} ({split}) has no examples. Point to a source that is not empty.")
    if unused:
        warnings.warn(f"{source}: these columns are not used: {', '.join(unused)}.", UserWarning, stacklevel=2)
    return examples
