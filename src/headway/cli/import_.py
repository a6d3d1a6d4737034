"""`headway import`: heads that other software wrote."""

from dataclasses import dataclass
from pathlib import Path

from headway.cli.console import say
from headway.config import field, load

ABOUT = "Read heads that other software wrote: headway import FOLDER --from FORMAT --output-dir FOLDER."


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of `headway import`."""

    folder: Path = field(help="the folder to read")
    from_: str = field(help="its format: transformers, medusa, eagle, eagle3 or speculators")
    output_dir: Path = field(help="folder to write")
    trunk: str | None = field(None, help="folder or hub id of the model the heads go onto (default: the one in the folder)")
    seed: int = field(0, "taken as every verb takes it; nothing here is random")


def run(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--folder", *arguments]
    config = load(ImportConfig, overrides=arguments, prog="headway import", about=ABOUT)
    from headway.interop import import_  # after --help has had its chance: this takes seconds
    from headway.training.loop import copy_tokenizer

    model = import_(config.folder, config.from_, config.trunk)
    model.save_pretrained(config.output_dir)
    copy_tokenizer(config.trunk or model.trunk.config.name_or_path or config.folder, config.output_dir)
    assert model.heads is not None
    say(f"{config.output_dir} holds the model and {model.count} {model.heads.family} heads")
