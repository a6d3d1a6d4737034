"""The four experiments: runs, training, metrics, and the paper's claims and figures."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from headway.experiments.metrics import Metric
from headway.experiments.reproduce import finetuning, induction, polynomial, scale
from headway.experiments.reproduce.configs import (
    FinetuningConfig,
    InductionConfig,
    PolynomialConfig,
    ReproduceConfig,
    ScaleConfig,
    ScratchConfig,
)
from headway.experiments.reproduce.scratch import GeneratedTask, Learnt, learn
from headway.experiments.reproduce.specs import ReproductionSpec
from headway.experiments.reproduce.summary import Expectation, trend_group

PAPER = "Gloeckle et al. 2024, arXiv 2404.19737"
LOSS = Metric("loss", "held-out loss", higher_is_better=False)
TOKENS_PER_FORWARD = Metric("tokens per forward", "tokens per forward", format="{:.3f}")

Learn = Callable[[ReproductionSpec, Path, Sequence[TrainerCallback]], Learnt]


@dataclass(frozen=True)
class PaperTable:
    """Figures of the paper.

    Args:
        title: number and caption of the table.
        columns: names of the columns.
        values: by arm, a figure for every column.
    """

    title: str
    columns: Sequence[str]
    values: dict[str, Sequence[float]]


@dataclass(frozen=True)
class PaperExperiment:
    """An experiment of the paper.

    Args:
        claim: the paper's claim, with section or table.
        metrics: metrics of a run. The terminal shows the first three.
        plotted: key of the metric of the learning curves.
        specs: all runs.
        learn: trains and scores a run in a folder.
        pairs: (arm, baseline).
        expected: the claim as directions of differences.
        table: figures of the paper.
        trend: smallest and largest size, for the comparison of differences.
    """

    title: str
    claim: str
    metrics: Sequence[Metric]
    plotted: str
    specs: list[ReproductionSpec]
    learn: Learn
    pairs: list[tuple[str, str]]
    expected: list[Expectation]
    table: PaperTable | None = None
    trend: tuple[str, str] | None = None


def of(config: ReproduceConfig) -> PaperExperiment:
    """The experiment of a resolved config."""
    return BY_CONFIG[type(config)](config)


def _scratch_specs(config: ScratchConfig, pauses: Sequence[int] = (0,)) -> list[ReproductionSpec]:
    """Specs seed by seed: an interrupted experiment has pairs to compare."""
    assert config.tokens is not None and config.sizes is not None
    return [
        ReproductionSpec(f"n={n}", size, config.seed + index, n, pause)
        for index in range(config.seeds)
        for size in config.sizes
        for pause in pauses
        for n in config.tokens
    ]


def _against_one(config: ScratchConfig) -> list[tuple[str, str]]:
    assert config.tokens is not None
    return [(f"n={n}", "n=1") for n in config.tokens if n != 1]


def _induction(config: InductionConfig) -> PaperExperiment:
    task = functools.cache(lambda: induction.task_of(config))
    return PaperExperiment(
        title="Induction: second tokens of names already mentioned",
        claim="2-token prediction vastly improves induction in models of up to 30M parameters, with no advantage left from 100M on "
        f"({PAPER}, section 4.1 and figure 7; the figure prints no numbers).",
        metrics=[
            Metric("best", "accuracy, best point", format="{:.1%}"),
            Metric("accuracy", "accuracy, end", format="{:.1%}"),
            Metric("probability", "probability, end", format="{:.1%}"),
        ],
        plotted="accuracy",
        specs=_scratch_specs(config),
        learn=_learner(config, lambda spec: task(), best="accuracy"),
        pairs=_against_one(config),
        expected=[Expectation(arm, one, "best") for arm, one in _against_one(config) if arm == "n=2"],
    )


def _polynomial(config: PolynomialConfig) -> PaperExperiment:
    assert config.pauses is not None and config.tested is not None and config.trained is not None
    task = functools.cache(lambda pauses: polynomial.task_of(config, pauses))
    metrics = [Metric("in domain", f"solved, m <= {config.trained}", format="{:.1%}")]
    if config.tested > config.trained:
        metrics.append(Metric("out of domain", f"solved, m > {config.trained}", format="{:.1%}"))
    metrics += [Metric(f"m={m}", f"solved, m = {m}", format="{:.1%}") for m in range(1, config.tested + 1)]
    return PaperExperiment(
        title="Polynomial arithmetic in F7[X]/(X^5)",
        claim="multi-token prediction solves more expressions than next-token prediction at every number of operations, in and "
        "out of domain, with pause tokens and without "
        f"({PAPER}, section 4.2, figures 8, S15 and S16; the figures print no numbers).",
        metrics=metrics,
        plotted="in domain",
        specs=_scratch_specs(config, config.pauses),
        learn=_learner(config, lambda spec: task(spec.pauses)),
        pairs=_against_one(config),
        expected=[Expectation(arm, one, metric.key) for arm, one in _against_one(config) for metric in metrics[:2]],
    )


def _scale(config: ScaleConfig) -> PaperExperiment:
    assert config.sizes is not None
    task = functools.cache(lambda: scale.task_of(config))
    trend = (config.sizes[0], config.sizes[-1]) if len(config.sizes) > 1 else None
    return PaperExperiment(
        title="Head count against scale",
        claim="multi-token prediction hurts small models and helps large ones: MBPP programs solved at the first try, n = 4 "
        f"against n = 1, 1.0 to 1.8 % at 0.3B parameters and 26.0 to 23.9 % at 6.7B ({PAPER}, table S7).",
        metrics=[LOSS, TOKENS_PER_FORWARD],
        plotted="loss",
        specs=_scratch_specs(config),
        learn=_learner(config, lambda spec: task()),
        pairs=_against_one(config),
        expected=[Expectation(arm, one, "loss", group=trend_group(*trend)) for arm, one in _against_one(config)] if trend else [],
        table=PaperTable(
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


def _finetuning(config: FinetuningConfig) -> PaperExperiment:
    finetuning.check(config)
    random_, pretrained = "random heads, full weight", "pretrained heads, small weight"
    arms = [arm for arm in finetuning.ARMS if arm != finetuning.BASELINE]
    return PaperExperiment(
        title="Fine-tuning towards several tokens",
        claim="fine-tuning Llama 2 on code with 4-token prediction does not help: 38.3 against 39.6 % of MBPP, 27.9 against 31.4 % "
        "of HumanEval at the first try; with the heads added to the layers, as here, 42.5 and 28.7 % "
        f"({PAPER}, table S6 and appendix D).",
        metrics=[Metric("exact match", "solved", format="{:.1%}"), LOSS, TOKENS_PER_FORWARD],
        plotted="training loss",
        specs=[
            ReproductionSpec(arm, "fine-tuned", config.seed + index) for index in range(config.seeds) for arm in finetuning.ARMS
        ],
        learn=functools.partial(finetuning.learn, config),
        pairs=[*((arm, finetuning.BASELINE) for arm in arms), (pretrained, random_)],
        expected=[Expectation(random_, finetuning.BASELINE, key, better=False) for key in ("exact match", "loss")],
        table=PaperTable(
            "table S6: pass@1, %",
            ("MBPP", "HumanEval"),
            {finetuning.BASELINE: (39.6, 31.4), "4 tokens": (38.3, 27.9), "4, layers added": (42.5, 28.7)},
        ),
    )


def _learner(config: ScratchConfig, task: Callable[[ReproductionSpec], GeneratedTask], best: str = "") -> Learn:
    """Training from scratch.

    Args:
        best: key of a metric. The highest point becomes the metric "best". The paper stops early by the test score.
    """

    def run(spec: ReproductionSpec, folder: Path, callbacks: Sequence[TrainerCallback]) -> Learnt:
        learnt = learn(config, task(spec), spec, folder, callbacks)
        if not best:
            return learnt
        return replace(learnt, metrics={**learnt.metrics, "best": max(point.metrics[best] for point in learnt.curve)})

    return run


BY_CONFIG: dict[type[ReproduceConfig], Callable[[Any], PaperExperiment]] = {
    InductionConfig: _induction,
    PolynomialConfig: _polynomial,
    FinetuningConfig: _finetuning,
    ScaleConfig: _scale,
}
