"""`headway finetune`: model and heads learn a task together."""

from headway.cli.console import say
from headway.config import load
from headway.training.configs import FinetuneConfig

ABOUT = "Fine-tune a model on your data, towards the next token or several, in full or with LoRA."


def run(arguments: list[str]) -> None:
    config = load(FinetuneConfig, overrides=arguments, prog="headway finetune", about=ABOUT)
    from headway.training import finetune  # after --help has had its chance: this takes seconds

    say(f"The model is in {finetune(config)}")
