"""`headway heads inspect FOLDER`: contents of a folder of heads, read from file headers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.cli.console import print_json
from headway.config import field
from headway.errors import CheckpointError
from headway.files import read_json
from headway.interop.headers import count_parameters, headers_in
from headway.reports.tables import framed_table

CONFIG_FILE, TENSORS_FILE = "headway.json", "headway.safetensors"


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Settings of `headway heads inspect`."""

    folder: Path = field(help="folder of a model or of heads, by Headway or other software, or `embedded`")
    json: bool = field(False, help="print JSON in place of tables")


def run(config: InspectConfig) -> None:
    """Print the settings, notes and tensors of the heads in a folder. Raises CheckpointError."""
    folder = _folder(config.folder)
    is_headway = (folder / CONFIG_FILE).is_file() or (folder / TENSORS_FILE).is_file()
    found = inspect(folder) if is_headway else inspect_other(folder)
    if config.json:
        print_json(found)
        return
    facts = [[key, str(value)] for key, value in found.items() if not isinstance(value, dict | list)]
    for group in ("options", "training"):
        facts += [[f"{group}.{key}", str(value)] for key, value in found.get(group, {}).items()]
    facts += [["note", note] for note in found.get("notes", [])]
    print(framed_table(["heads", str(config.folder)], facts))
    if found["tensors"]:
        print(
            framed_table(
                ["tensor", "shape", "dtype"],
                [[tensor["name"], str(tensor["shape"]), tensor["dtype"]] for tensor in found["tensors"]],
            )
        )


def inspect(folder: Path) -> dict[str, Any]:
    """Settings and tensors of a folder by Headway. Raises CheckpointError for a missing or damaged file."""
    if not (path := folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} holds no heads: {CONFIG_FILE} is missing.")
    found = read_json(path)
    if "family" not in found:
        raise CheckpointError(f"{path} is not what Headway writes: it names no family.")
    tensors = headers_in(folder / TENSORS_FILE)
    found |= {"format": "headway", "engines": "Headway; others after `headway export`"}
    found.setdefault("options", {})
    found.setdefault("training", {})
    found["parameters"], found["dtype"] = count_parameters(tensors)
    found["tensors"] = [{"name": name, "shape": list(header.shape), "dtype": header.dtype} for name, header in tensors.items()]
    return found


def inspect_other(folder: Path) -> dict[str, Any]:
    """Contents of a folder in a foreign format: format, tensors and engines. Raises CheckpointError for damage or pickles."""
    from headway.interop.recognition import recognise

    if folder.is_dir() and not any(folder.iterdir()):
        raise CheckpointError(f"{folder} holds no heads: {CONFIG_FILE} is missing, and everything else.")
    return recognise(folder)


def _folder(folder: Path) -> Path:
    from headway import embedded_path

    return embedded_path() if str(folder) == "embedded" and not folder.is_dir() else folder
