"""`headway reproduce EXPERIMENT`: the papers' small-scale claims, measured again on one machine."""

from headway.config import load, nearest
from headway.errors import ConfigError
from headway.experiments.reproduce.configs import EXPERIMENTS, ReproduceConfig

ABOUT = f"Repeat an experiment of Gloeckle et al. 2024: headway reproduce EXPERIMENT, one of {', '.join(EXPERIMENTS)}."


def run(arguments: list[str]) -> None:
    named = bool(arguments) and not arguments[0].startswith("-")
    if named and arguments[0] not in EXPERIMENTS:
        close = nearest(arguments[0], EXPERIMENTS) or f"; there are: {', '.join(EXPERIMENTS)}."
        raise ConfigError(f"There is no experiment {arguments[0]!r}{close}")
    kind = EXPERIMENTS[arguments[0]] if named else ReproduceConfig
    prog = f"headway reproduce {arguments[0]}" if named else "headway reproduce"
    config = load(kind, overrides=arguments[named:], prog=prog, about=(kind.__doc__ or "") if named else ABOUT)
    if not named:
        raise ConfigError(f"headway reproduce needs the name of an experiment first: {', '.join(EXPERIMENTS)}.")
    from headway.experiments.reproduce.reproduce import reproduce  # after --help has had its chance: this takes seconds

    reproduce(config)
