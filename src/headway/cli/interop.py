"""`headway export` and `headway import`: heads in the formats of other software."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.cli.console import note
from headway.config import field
from headway.interop.formats import FORMATS

FORMAT_HELP = "format; --list-formats prints descriptions"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `headway export`."""

    model: str = field(help="folder or hub id of the model with heads")
    to: str = field(help=FORMAT_HELP, choices=FORMATS)
    output_dir: Path = field(help="folder to write")
    options: dict[str, Any] | None = field(None, help="options of the format, such as {layout: deepseek}")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of `headway import`."""

    folder: Path = field(help="folder to read")
    from_: str = field(help=FORMAT_HELP, choices=FORMATS)
    output_dir: Path = field(help="folder to write")
    trunk: str | None = field(None, help="folder or hub id of the model for the heads", default_text="the one in the folder")


def run_export(config: ExportConfig) -> None:
    """Write the heads of a model, and print a line for every tensor. Raises HeadwayError."""
    from headway.interop import export, recognise  # torch and transformers take seconds to import
    from headway.model import HeadwayModel
    from headway.training.loop import copy_tokenizer

    report = export(HeadwayModel.from_pretrained(config.model), config.to, config.output_dir, config.options)
    if FORMATS[config.to].holds_trunk:
        copy_tokenizer(config.model, config.output_dir)
    print(report)
    note(f"{config.output_dir}, read by {recognise(config.output_dir)['engines']}")


def run_import(config: ImportConfig) -> None:
    """Attach heads from a foreign format to a model, and save both. Raises HeadwayError."""
    from headway.interop import import_  # torch and transformers take seconds to import
    from headway.training.loop import copy_tokenizer

    model = import_(config.folder, config.from_, config.trunk)
    model.save_pretrained(config.output_dir)
    copy_tokenizer(config.trunk or model.trunk.config.name_or_path or config.folder, config.output_dir)
    assert model.heads is not None
    note(f"{config.output_dir} holds the model and {model.count} {model.heads.family} heads")
