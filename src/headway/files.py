"""Files and folders written completely or not at all: a temporary name in the same folder, then a rename."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from headway.errors import CheckpointError, HeadwayError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"  # weights of a model: index of shards, single file
ADAPTER_CONFIG, ADAPTER_TENSORS = "adapter_config.json", "adapter_model.safetensors"
# weights, indices of shards, adapters and heads, of any library that reads a model folder
MODEL_FILES = (
    "model*.safetensors",
    "pytorch_model*.bin",
    "consolidated*.safetensors",
    "consolidated*.pth",
    "*-?????-of-?????.safetensors",
    "*-?????-of-?????.bin",
    "*.safetensors.index*.json",
    "*.bin.index*.json",
    "tf_model*.h5",
    "flax_model*.msgpack",
    "rust_model.ot",
    "adapter_config.json",
    "adapter_model*.safetensors",
    "adapter_model*.bin",
    "headway.json",
    "headway.safetensors",
)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path`, completely or not at all. Raises HeadwayError if the disk is full or the file cannot be written."""
    with replacing_file(path) as file:
        file.write(text.encode())


@contextmanager
def replacing_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path`; rename the file to `path` on success, delete the file on failure.

    Raises: HeadwayError if the disk is full or the file cannot be written.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are not JSON and raise ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Settings of a checkpoint. Raises CheckpointError if the file cannot be read or is not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it holds no settings.")
    return found


@contextmanager
def replacing_folder(path: str | Path, stale: Callable[[Path], Iterable[str]] = lambda folder: ()) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename the folder to `path` on success, delete the folder on failure.

    Files in an older `path` stay unless the new folder has a file of the same name: a checkpoint may share a folder with results.

    Args:
        path: folder to write.
        stale: names of the files in an older `path` that are deleted once the new files are in place.
    Raises: HeadwayError if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            os.chmod(temporary, 0o755)
            if not path.exists():
                os.replace(temporary, path)
            else:
                old, new = set(stale(path)), {file.name for file in temporary.iterdir()}
                for file in sorted(temporary.iterdir()):
                    target = path / file.name
                    if target.is_dir():
                        shutil.rmtree(target)
                    os.replace(file, target)
                for name in old - new:
                    (path / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def model_files(folder: Path) -> set[str]:
    """Names of the weights, indices, adapters and heads in a folder: `MODEL_FILES`, and the shards that an index names."""
    names = {file.name for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()}
    for index in [name for name in names if name.endswith(".index.json")]:
        try:
            shards = set(read_json(folder / index).get("weight_map", {}).values())
        except (CheckpointError, AttributeError, TypeError):  # a damaged index is stale all the same
            continue
        names |= {shard for shard in shards if Path(shard).name == shard and (folder / shard).is_file()}
    return names


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except HeadwayError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise HeadwayError(f"cannot write {path}: {reason}. Free some space or choose another folder.") from error
