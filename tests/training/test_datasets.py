"""Rows of any integer columns in flat arrays, and their cache."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from headway.errors import DataError
from headway.model import load_tokenizer
from headway.training.configs import FinetuneConfig
from headway.training.datasets import PackedDataset, build_dataset


def test_a_data_set_holds_any_integer_columns() -> None:
    rows = [{"tokens": [5, 6, 7], "scores": [1, 0, 2]}, {"tokens": [8], "scores": [-3]}, {"tokens": [9, 9], "scores": [4, 4]}]
    dataset = PackedDataset.of(rows)
    assert len(dataset) == 3 and [dataset[index] for index in range(3)] == rows
    assert dataset.arrays.keys() == {"tokens", "scores"} and dataset.arrays["scores"].dtype == np.int32


def test_cached_rows_are_read_back_until_a_setting_or_the_file_changes(model: str, data: str, tmp_path: Path) -> None:
    tokenizer, cache = load_tokenizer(model), tmp_path / "cache"
    config = FinetuneConfig(model=model, data=data, output_dir=tmp_path, max_length=48)
    first, again = (build_dataset(config, tokenizer, cache=cache) for _ in range(2))
    assert isinstance(again.arrays["labels"], np.memmap) and not isinstance(first.arrays["labels"], np.memmap)
    assert [first[index] for index in range(len(first))] == [again[index] for index in range(len(again))]
    assert len(list(cache.iterdir())) == 1
    build_dataset(dataclasses.replace(config, max_length=32), tokenizer, cache=cache)
    assert len(list(cache.iterdir())) == 2


def test_data_without_labels_is_refused(model: str, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"prompt": "one " * 60, "completion": "two"}) + "\n")
    config = FinetuneConfig(model=model, data=str(file), output_dir=tmp_path, max_length=16)
    with pytest.raises(DataError, match="nothing to learn is left in rows of 16 tokens"), pytest.warns(UserWarning):
        build_dataset(config, load_tokenizer(model), completion_only=True)
