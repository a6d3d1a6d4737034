"""`headway heads compare`: which head family drafts best on your model, and what it costs."""

from headway.config import load
from headway.experiments.families.configs import HeadsCompareConfig

ABOUT = (
    "Train every head family on the same trunk with the same data and budget; report parameters, training time and memory, "
    "acceptance by position, tokens a forward and speed. `headway heads compare FILE.yaml` reads the settings from a file, where "
    "families may carry options. Repeat the command to go on after a stop."
)


def run(arguments: list[str]) -> None:
    file = arguments[0] if arguments and not arguments[0].startswith("-") else None
    config = load(HeadsCompareConfig, file, arguments[1:] if file else arguments, prog="headway heads compare", about=ABOUT)
    from headway.experiments.families.compare import run as run_compare  # after --help has had its chance: this takes seconds

    run_compare(config)
