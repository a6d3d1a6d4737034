"""Data sets of packed rows of tokens from the names of data sources. Rows of local files are cached beside the run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from headway.data import Encoded, Text, load_examples, pack, row_of, tokenize_all
from headway.errors import DataError
from headway.files import replacing_folder
from headway.ops import IGNORE
from headway.training.configs import TrainingConfig
from headway.training.denoising import DenoisedRows, Denoising, denoising_of


class PackedDataset(Dataset):
    """Rows of integer columns end to end in flat arrays, since a hundred million tokens do not fit into memory as lists.

    Args:
        arrays: column name -> values of all rows, (tokens,).
        ends: end of every row, (rows,).
    """

    def __init__(self, arrays: dict[str, np.ndarray], ends: np.ndarray) -> None:
        self.arrays = arrays
        self.ends = ends

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "PackedDataset":
        """Rows of equally long lists, all with the same columns."""
        ends = np.cumsum([len(next(iter(row.values()))) for row in rows])
        return cls({name: np.concatenate([np.asarray(row[name], np.int32) for row in rows]) for name in rows[0]}, ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        start = int(self.ends[index - 1]) if index else 0
        return {name: array[start : self.ends[index]].tolist() for name, array in self.arrays.items()}


def build_dataset(
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    completion_only: bool = False,
    validation: bool = False,
    cache: Path | None = None,
) -> PackedDataset | DenoisedRows:
    """Load, tokenise and pack the data of a run, and denoise it if the settings say so.

    Args:
        config: settings of the run.
        tokenizer: tokenizer of the model. Missing special tokens of denoising are added.
        completion_only: labels on completions only, if the data has prompts.
        validation: build the validation data instead of the training data.
        cache: folder to keep the rows in, if all sources are local files.
    Raises:
        DataError: no row has labels, or a source cannot be read.
    """
    denoising = denoising_of(config, tokenizer)
    rows = _build_packed_dataset(config, tokenizer, denoising, completion_only, validation, cache)
    if denoising.transform is None:
        return rows
    return DenoisedRows(rows, denoising.transform, config.seed, config.bidirectional_prefix, denoising.added)


def _build_packed_dataset(
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    denoising: Denoising,
    completion_only: bool,
    validation: bool,
    cache: Path | None,
) -> PackedDataset:
    sources = [config.validation] if validation and config.validation is not None else config.sources
    split = config.validation_split if validation else config.split
    kept = None
    if cache is not None and all(Path(source).is_file() and not source.endswith((".yaml", ".yml")) for source in sources):
        kept = (
            cache
            / f"rows-{_key(config, tokenizer, sources, completion_only, denoising.max_document_length, config.denoising_tokens)}"
        )
        if kept.is_dir():
            arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(kept.glob("*.npy"))}
            return PackedDataset(arrays, arrays.pop("ends"))
    encoded: list[Encoded] = []
    for source in sources:
        examples = load_examples(source, split=split, limit=config.limit, columns=config.columns)
        texts = all(isinstance(example, Text) for example in examples)
        if config.denoising == "ul2" and not texts:
            raise DataError(f"{source} has prompts or messages, and ul2 denoises plain text: use denoising: prefix-lm, or none.")
        max_length = denoising.max_document_length if texts else config.max_length
        encoded += tokenize_all(examples, tokenizer, max_length, completion_only)[0]
    encoded = [row for row in encoded if any(label != IGNORE for label in row["labels"][1:])]
    if not encoded:
        raise DataError(f"{', '.join(sources)}: nothing to learn is left in rows of {config.max_length} tokens.")
    rows = PackedDataset.of(
        pack(encoded, config.max_length, denoising.max_denoised_length) if config.pack else [row_of([row]) for row in encoded]
    )
    if kept is not None:
        with replacing_folder(kept) as folder:
            np.save(folder / "ends.npy", rows.ends)
            for name, array in rows.arrays.items():
                np.save(folder / f"{name}.npy", array)
    return rows


def build_validation_dataset(
    config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, completion_only: bool = False
) -> PackedDataset | DenoisedRows | None:
    """Data set of the validation data; None without validation data."""
    return None if config.validation is None else build_dataset(config, tokenizer, completion_only, validation=True)


def _key(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, sources: Sequence[str], *others: Any) -> str:
    files = [(str(Path(source).resolve()), Path(source).stat().st_size, Path(source).stat().st_mtime) for source in sources]
    vocabulary = sorted(tokenizer.get_vocab().items())
    told = [
        files,
        vocabulary,
        str(tokenizer.chat_template),
        config.split,
        config.limit,
        config.columns,
        config.max_length,
        config.pack,
        others,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
