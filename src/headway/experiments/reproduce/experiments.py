"""The four experiments: which runs each has, how one is learnt, what is measured, and what the paper says."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.experiments.reproduce import finetuning, induction, polynomial, scale
from headway.experiments.reproduce.configs import (
    FinetuningConfig,
    InductionConfig,
    PolynomialConfig,
    ReproduceConfig,
    ScaleConfig,
    ScratchConfig,
)
from headway.experiments.reproduce.runs import Learn, Run
from headway.experiments.reproduce.scratch import Task, learn
from headway.experiments.reproduce.summary import Expectation, Measure, between

PAPER = "Gloeckle et al. 2024, arXiv 2404.19737"


@dataclass(frozen=True)
class Published:
    """Numbers that the paper prints: of each arm, at each place of `places`."""

    title: str
    places: Sequence[str]
    values: dict[str, Sequence[float]]


@dataclass(frozen=True)
class Experiment:
    """`claim` is the paper's, with its place; `expected` what of it can be held against the runs."""

    title: str
    claim: str
    measures: Sequence[Measure]
    plotted: str  # the measure of the learning curves
    runs: list[Run]
    learn: Learn
    pairs: list[tuple[str, str]]
    expected: list[Expectation]
    published: Published | None = None
    trend: tuple[str, str] | None = None  # smallest and largest size: whether differences change between them


def of(config: ReproduceConfig) -> Experiment:
    """The experiment that a resolved config is of."""
    return BY_CONFIG[type(config)](config)


def _from_scratch(config: ScratchConfig, pauses: Sequence[int] = (0,)) -> list[Run]:
    """Seeds outermost, so that whatever is finished when time is up can be compared."""
    assert config.tokens is not None and config.sizes is not None
    return [
        Run(f"n={n}", size, config.seed + index, n, pause)
        for index in range(config.seeds)
        for size in config.sizes
        for pause in pauses
        for n in config.tokens
    ]


def _against_one(config: ScratchConfig) -> list[tuple[str, str]]:
    assert config.tokens is not None
    return [(f"n={n}", "n=1") for n in config.tokens if n != 1]


def _induction(config: InductionConfig) -> Experiment:
    task = functools.cache(lambda: induction.task_of(config))
    return Experiment(
        title="Induction: second tokens of names already mentioned",
        claim="2-token prediction vastly improves induction in models of up to 30M parameters, with no advantage left from 100M on "
        f"({PAPER}, section 4.1 and figure 7; the figure prints no numbers).",
        measures=[
            Measure("best", "accuracy, best point, %"),
            Measure("accuracy", "accuracy, end, %"),
            Measure("probability", "probability, end, %"),
        ],
        plotted="accuracy",
        runs=_from_scratch(config),
        learn=_learner(config, lambda run: task(), best="accuracy"),
        pairs=_against_one(config),
        expected=[Expectation(arm, one, "best") for arm, one in _against_one(config) if arm == "n=2"],
    )


def _polynomial(config: PolynomialConfig) -> Experiment:
    assert config.pauses is not None and config.tested is not None and config.trained is not None
    task = functools.cache(lambda pauses: polynomial.task_of(config, pauses))
    measures = [Measure("in domain", f"solved, m <= {config.trained}, %")]
    if config.tested > config.trained:
        measures.append(Measure("out of domain", f"solved, m > {config.trained}, %"))
    measures += [Measure(f"m={m}", f"m = {m}, %") for m in range(1, config.tested + 1)]
    return Experiment(
        title="Polynomial arithmetic in F7[X]/(X^5)",
        claim="multi-token prediction solves more expressions than next-token prediction at every number of operations, in and "
        "out of domain, with pause tokens and without "
        f"({PAPER}, section 4.2, figures 8, S15 and S16; the figures print no numbers).",
        measures=measures,
        plotted="in domain",
        runs=_from_scratch(config, config.pauses),
        learn=_learner(config, lambda run: task(run.pauses)),
        pairs=_against_one(config),
        expected=[Expectation(arm, one, measure.key) for arm, one in _against_one(config) for measure in measures[:2]],
    )


def _scale(config: ScaleConfig) -> Experiment:
    assert config.sizes is not None
    task = functools.cache(lambda: scale.task_of(config))
    trend = (config.sizes[0], config.sizes[-1]) if len(config.sizes) > 1 else None
    return Experiment(
        title="Head count against scale",
        claim="multi-token prediction hurts small models and helps large ones: MBPP programs solved at the first try, n = 4 "
        f"against n = 1, 1.0 to 1.8 % at 0.3B parameters and 26.0 to 23.9 % at 6.7B ({PAPER}, table S7).",
        measures=[
            Measure("loss", "held-out loss", False, False),
            Measure("tokens a forward", "tokens a forward", True, False),
        ],
        plotted="loss",
        runs=_from_scratch(config),
        learn=_learner(config, lambda run: task()),
        pairs=_against_one(config),
        expected=[Expectation(arm, one, "loss", group=between(*trend)) for arm, one in _against_one(config)] if trend else [],
        published=Published(
            "table S7: MBPP pass@1, %",
            ("0.3B", "0.6B", "1.3B", "3B", "6.7B", "13B"),
            {
                "n=1": (1.8, 4.7, 6.8, 11.1, 23.9, 26.0),
                "n=2": (1.7, 4.6, 7.3, 11.8, 24.7, 30.5),
                "n=4": (1.0, 3.0, 7.4, 12.7, 26.0, 30.5),
            },
        ),
        trend=trend,
    )


def _finetuning(config: FinetuningConfig) -> Experiment:
    finetuning.check(config)
    random_, warm = "random heads, full weight", "pretrained heads, small weight"
    arms = [arm for arm in finetuning.ARMS if arm != finetuning.BASELINE]
    return Experiment(
        title="Fine-tuning towards several tokens",
        claim="fine-tuning Llama 2 on code with 4-token prediction does not help: 38.3 against 39.6 % of MBPP, 27.9 against 31.4 % "
        "of HumanEval at the first try; with the heads added to the layers, as here, 42.5 and 28.7 % "
        f"({PAPER}, table S6 and appendix D).",
        measures=[
            Measure("exact match", "solved, %"),
            Measure("loss", "held-out loss", False, False),
            Measure("tokens a forward", "tokens a forward", True, False),
        ],
        plotted="training loss",
        runs=[Run(arm, "fine-tuned", config.seed + index) for index in range(config.seeds) for arm in finetuning.ARMS],
        learn=lambda run, folder, advance: finetuning.learn(config, run, folder, advance),
        pairs=[*((arm, finetuning.BASELINE) for arm in arms), (warm, random_)],
        expected=[Expectation(random_, finetuning.BASELINE, measure, better=False) for measure in ("exact match", "loss")],
        published=Published(
            "table S6: pass@1, %",
            ("MBPP", "HumanEval"),
            {finetuning.BASELINE: (39.6, 31.4), "4 tokens": (38.3, 27.9), "4, layers added": (42.5, 28.7)},
        ),
    )


def _learner(config: ScratchConfig, task: Callable[[Run], Task], best: str = "") -> Learn:
    def run_one(run: Run, folder: Path, advance: Callable[[int], None]) -> dict[str, Any]:
        found = learn(config, task(run), run, folder, advance)
        if best:  # the paper stops early by the test score, which favours whoever swings most
            found["measures"]["best"] = max(point["measures"][best] for point in found["curve"])
        return found

    return run_one


BY_CONFIG: dict[type[ReproduceConfig], Callable[[Any], Experiment]] = {
    InductionConfig: _induction,
    PolynomialConfig: _polynomial,
    FinetuningConfig: _finetuning,
    ScaleConfig: _scale,
}
