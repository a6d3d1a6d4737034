"""Tensors of a checkpoint folder in safetensors: names, shapes and values."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from headway.errors import CheckpointError
from headway.files import INDEX, SINGLE, read_json


def checkpoint_files(folder: Path) -> dict[str, str]:
    """Tensor name -> file name; empty for a folder without weights in safetensors.

    The single file wins over an index, as in transformers.

    Raises: CheckpointError if the file or the index is damaged.
    """
    if (folder / SINGLE).is_file():
        with opened(folder / SINGLE) as tensors:
            return dict.fromkeys(tensors.keys(), SINGLE)
    return dict(read_json(folder / INDEX).get("weight_map", {})) if (folder / INDEX).is_file() else {}


def read_tensors(folder: Path, files: Mapping[str, str], names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Name and value of the tensors in `names`, file by file.

    Args:
        folder: checkpoint folder.
        files: tensor name -> file name, from `checkpoint_files`.
        names: tensors to read.
    Raises: CheckpointError if a file is missing or damaged.
    """
    names = list(names)
    for file in sorted({files[name] for name in names}):
        with opened(folder / file) as tensors:
            for name in names:
                if files[name] == file:
                    yield name, tensors.get_tensor(name)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An open safetensors file. Raises CheckpointError if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except CheckpointError:
        raise
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Fetch the checkpoint again.") from error
