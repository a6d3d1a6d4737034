"""`headway bench plan`: whether heads would pay, before anyone trains them."""

from headway.config import load
from headway.evaluation.configs import PlanConfig

ABOUT = "Measure what drafts cost on this machine and model, and how often they must be right to pay, before training heads."


def run(arguments: list[str]) -> None:
    config = load(PlanConfig, overrides=arguments, prog="headway bench plan", about=ABOUT)
    from headway.evaluation.benchmarks import speedup_estimate  # after --help has had its chance: this takes seconds

    speedup_estimate.run(config)
