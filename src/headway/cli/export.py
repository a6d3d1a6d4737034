"""`headway export`: heads the way other software reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.cli.console import say
from headway.config import field, load

ABOUT = "Write a model's heads the way other software reads them: headway export --model FOLDER --to FORMAT --output-dir FOLDER."


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `headway export`."""

    model: str = field(help="folder or hub id of the model with heads")
    to: str = field(help="the format: transformers, medusa, eagle, eagle3 or speculators")
    output_dir: Path = field(help="folder to write")
    options: dict[str, Any] | None = field(None, help="options of the format, such as {layout: deepseek}")
    seed: int = field(0, "taken as every verb takes it; nothing here is random")


def run(arguments: list[str]) -> None:
    config = load(ExportConfig, overrides=arguments, prog="headway export", about=ABOUT)
    from headway.interop import FORMATS, export, recognise  # after --help has had its chance: this takes seconds
    from headway.model import HeadwayModel
    from headway.training.loop import copy_tokenizer

    account = export(HeadwayModel.from_pretrained(config.model), config.to, config.output_dir, config.options)
    if FORMATS[config.to].whole:
        copy_tokenizer(config.model, config.output_dir)
    print(account)
    say(f"{config.output_dir}, read by {recognise(config.output_dir)['engines']}")
