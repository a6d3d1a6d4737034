"""`headway compare`: does looking ahead help your model on your task?"""

from headway.config import load
from headway.experiments.compare.configs import CompareConfig

ABOUT = (
    "Fine-tune every arm on every task with several seeds, the same data and budget for all; score, time, and report differences "
    "paired by seed. `headway compare FILE.yaml` reads the settings from a file, where arms and tasks are easiest to write; "
    "examples/compare.yaml is one. Repeat the command to go on after a stop."
)


def run(arguments: list[str]) -> None:
    file = arguments[0] if arguments and not arguments[0].startswith("-") else None
    config = load(CompareConfig, file, arguments[1:] if file else arguments, prog="headway compare", about=ABOUT)
    from headway.experiments.compare.compare import run as run_compare  # after --help has had its chance: this takes seconds

    run_compare(config)
