"""Settings of a model folder, and name, shape and data type of every tensor, without loading tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import CheckpointError
from headway.files import INDEX, SINGLE, read_json

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")
CONVERSION = (
    "from safetensors.torch import save_file; import torch; "
    "save_file({{n: t.clone() for n, t in torch.load('{name}', weights_only=True, map_location='cpu').items()}}, '{target}')"
)


@dataclass(frozen=True)
class Header:
    """Header of one tensor on disk."""

    shape: tuple[int, ...]
    dtype: str  # in the terms of safetensors: F32, BF16, ...
    file: str


def config_of(folder: Path) -> dict[str, Any]:
    """Content of `config.json`, empty without the file. Raises CheckpointError for a damaged file."""
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def headers(folder: Path) -> dict[str, Header]:
    """Headers of the model's tensors by name, or of all safetensors files in a folder without a model's file names.

    Raises:
        CheckpointError: the folder or a file is missing, a file is damaged, or weights exist as pickle files alone.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder.")
    if (folder / SINGLE).is_file():
        files = [SINGLE]
    elif (folder / INDEX).is_file():
        placed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(placed, dict):
            raise CheckpointError(f"{folder / INDEX} is damaged: it names no files.")
        files = sorted(set(placed.values()))
    else:
        files = sorted(path.name for path in folder.glob("*.safetensors"))
    if not files:
        refuse_pickles(folder)
    return {name: header for file in files for name, header in headers_in(folder / file).items()}


def headers_in(path: Path) -> dict[str, Header]:
    """Headers of the tensors in a file by name. Raises CheckpointError for a missing or damaged file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not whole: {path.name} is missing. Save or fetch it again.")
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            return {name: Header(tuple(part.get_shape()), part.get_dtype(), path.name) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Save or fetch it again.") from error


def refuse_pickles(folder: Path) -> None:
    """Raise CheckpointError, with a command that converts the file, for a folder with weights in pickle files."""
    found = sorted({path for pattern in PICKLES for path in folder.glob(pattern)})
    found = [path for path in found if not any(path.match(pattern) for pattern in NOT_WEIGHTS)]
    if found:
        target = SINGLE if found[0].name.startswith("pytorch_model") else found[0].with_suffix(".safetensors").name
        command = CONVERSION.format(name=found[0].name, target=target)
        raise CheckpointError(
            f"{folder} holds its weights in {found[0].name}, a pickle: opening one can run any code that its author put there, so "
            f'Headway reads safetensors alone. To convert it, with the loader of torch that runs no code: python -c "{command}"'
        )


def count_parameters(tensors: Mapping[str, Header]) -> tuple[int, str]:
    """Number of parameters in all, and the data types."""
    dtypes = sorted({header.dtype for header in tensors.values()})
    return sum(math.prod(header.shape) for header in tensors.values()), " ".join(dtypes)
