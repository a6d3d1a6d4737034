"""`headway demo`: the whole experiment in minutes, on the model that ships inside."""

from headway.config import load
from headway.experiments.compare.configs import DemoConfig

ABOUT = "Fine-tune the embedded model towards next tokens and towards several; compare scores and speed. No network."


def run(arguments: list[str]) -> None:
    config = load(DemoConfig, overrides=arguments, prog="headway demo", about=ABOUT)
    from headway.experiments.demo import run as run_demo  # after --help has had its chance: this takes seconds

    run_demo(config)
