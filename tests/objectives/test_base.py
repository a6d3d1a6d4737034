"""Collation and count of objectives over packed rows."""

import subprocess
import sys

import pytest
import torch

from headway.errors import DataError
from headway.objectives import OBJECTIVES, MultiToken, NextToken


def test_rows_are_padded_on_the_right_and_optional_columns_stay_optional():
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = NextToken().collate(rows)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "labels": [[-100, 6, 7], [8, -100, -100]],
    }
    full = [{**row, "segments": [0] * len(row["labels"]), "prefix": [True] * len(row["labels"])} for row in rows]
    batch = NextToken().collate(full)
    assert batch["segments"].tolist() == [[0, 0, 0], [0, -1, -1]] and batch["prefix"].dtype == torch.bool


def test_the_count_is_the_number_of_next_token_labels():
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    labels = torch.tensor([[5, 6, -100, 8, 9]])
    assert NextToken().count({"input_ids": ids, "labels": labels}) == 3
    segments = torch.tensor([[0, 0, 0, 0, 1]])
    assert MultiToken().count({"input_ids": ids, "labels": labels, "segments": segments}) == 2


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="needs the column 'labels', and the data has only input_ids, scores"):
        MultiToken().collate([{"input_ids": [1, 2], "scores": [0, 1]}])
    with pytest.raises(DataError, match="needs the column 'input_ids'"):
        MultiToken().collate([{"input_ids": [1], "labels": [1]}, {"tokens": [1]}])


def test_names_of_objectives_are_read_without_torch():
    code = "import sys, headway.objectives as o; assert 'registers' in o.OBJECTIVES and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(callable(build) for build in OBJECTIVES.values())
