"""`headway bench decode`: ways to decode the same prompts, side by side."""

from headway.config import load
from headway.evaluation.configs import DecodeBenchConfig

ABOUT = "Time Headway's decoding, plain and with drafts, beside transformers' own, on the same prompts with the same output."


def run(arguments: list[str]) -> None:
    config = load(DecodeBenchConfig, overrides=arguments, prog="headway bench decode", about=ABOUT)
    from headway.evaluation.benchmarks import decode  # after --help has had its chance: this takes seconds

    decode.run(config)
