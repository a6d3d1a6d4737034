"""`headway heads inspect FOLDER`: what a folder of heads holds, without loading the tensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config import field, load
from headway.errors import CheckpointError
from headway.files import read_json
from headway.interop.headers import counted, headers_in
from headway.reports.tables import framed_table

ABOUT = "Say what heads a folder holds, in which layout, and which engines serve it: headway heads inspect FOLDER."
CONFIG_FILE, TENSORS_FILE = "headway.json", "headway.safetensors"


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Settings of `headway heads inspect`."""

    folder: Path = field(help="any folder of a model or of heads, by Headway or by others, or `embedded`")
    json: bool = field(False, "print JSON in place of tables")
    seed: int = field(0, "taken as every verb takes it; nothing here is random")


def run(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--folder", *arguments]
    config = load(InspectConfig, overrides=arguments, prog="headway heads inspect", about=ABOUT)
    folder = _folder(config.folder)
    own = (folder / CONFIG_FILE).is_file() or (folder / TENSORS_FILE).is_file()
    found = inspect(folder) if own else of_others(folder)
    if config.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    facts = [[key, str(value)] for key, value in found.items() if not isinstance(value, dict | list)]
    for group in ("options", "training"):
        facts += [[f"{group}.{key}", str(value)] for key, value in found.get(group, {}).items()]
    facts += [["note", note] for note in found.get("notes", [])]
    print(framed_table(["heads", str(config.folder)], facts))
    if found["tensors"]:
        print(framed_table(["tensor", "shape", "dtype"], [[t["name"], str(t["shape"]), t["dtype"]] for t in found["tensors"]]))


def inspect(folder: Path) -> dict[str, Any]:
    """What is on disk. Raises CheckpointError where a file is missing or damaged."""
    if not (path := folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} holds no heads: {CONFIG_FILE} is missing.")
    found = read_json(path)
    if "family" not in found:
        raise CheckpointError(f"{path} is not what Headway writes: it names no family.")
    tensors = headers_in(folder / TENSORS_FILE)
    found |= {"format": "headway", "engines": "Headway; others after `headway export`"}
    found.setdefault("options", {})
    found.setdefault("training", {})
    found["parameters"], found["dtype"] = counted(tensors)
    found["tensors"] = [{"name": name, "shape": list(one.shape), "dtype": one.dtype} for name, one in tensors.items()]
    return found


def of_others(folder: Path) -> dict[str, Any]:
    """What others wrote: its layout, and what serves it. Raises CheckpointError where it is damaged, or a pickle."""
    from headway.interop.recognition import recognise

    if folder.is_dir() and not any(folder.iterdir()):
        raise CheckpointError(f"{folder} holds no heads: {CONFIG_FILE} is missing, and everything else.")
    return recognise(folder)


def _folder(folder: Path) -> Path:
    from headway import embedded_path

    return embedded_path() if str(folder) == "embedded" and not folder.is_dir() else folder
