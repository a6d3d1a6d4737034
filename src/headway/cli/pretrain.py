"""`headway pretrain`: train a small model from scratch."""

from headway.cli.console import say
from headway.config import load
from headway.training.configs import PretrainConfig

ABOUT = "Train a small Llama-architecture model from scratch; the defaults are the recipe of the embedded model."


def run(arguments: list[str]) -> None:
    config = load(PretrainConfig, overrides=arguments, prog="headway pretrain", about=ABOUT)
    from headway.training import pretrain  # after --help has had its chance: this takes seconds

    say(f"The model is in {pretrain(config)}")
