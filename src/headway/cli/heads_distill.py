"""`headway heads distill`: the model's own samples, for heads to learn what it says rather than what others wrote."""

from headway.cli.console import say
from headway.config import load
from headway.training.configs import DistillConfig

ABOUT = "Let a model continue prompts, and write what it says to a file that `headway heads train` and `headway finetune` read."


def run(arguments: list[str]) -> None:
    config = load(DistillConfig, overrides=arguments, prog="headway heads distill", about=ABOUT)
    from headway.training import distill  # after --help has had its chance: this takes seconds

    say(str(distill(config)))
