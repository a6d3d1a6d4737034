"""`headway bench train`: memory and time of a training step, beside stock transformers."""

from headway.config import load
from headway.evaluation.configs import BenchConfig

ABOUT = "Measure peak memory and time of a training step with heads, beside a stock transformers next-token step."


def run(arguments: list[str]) -> None:
    config = load(BenchConfig, overrides=arguments, prog="headway bench train", about=ABOUT)
    from headway.evaluation.benchmarks import train_step  # after --help has had its chance: this takes seconds

    train_step.run(config)
