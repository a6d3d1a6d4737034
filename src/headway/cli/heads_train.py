"""`headway heads train`: heads learn to look ahead while the model they sit on stays as it is."""

from headway.cli.console import say
from headway.config import load
from headway.training.configs import HeadsTrainConfig

ABOUT = "Attach heads to a model that stays frozen, and train them on your data."


def run(arguments: list[str]) -> None:
    config = load(HeadsTrainConfig, overrides=arguments, prog="headway heads train", about=ABOUT)
    from headway.training import train_heads  # after --help has had its chance: this takes seconds

    say(f"The heads are in {train_heads(config)}")
