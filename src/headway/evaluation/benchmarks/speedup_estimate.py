"""`headway bench plan`: estimate of the speedup by heads on this model and machine, before heads are trained.

The cost of a decode step with 0, 1, 2, ... drafts is timed with randomly initialised heads. The break-even acceptance follows by
arithmetic. Decoding then runs with an oracle drafter at the given acceptance rates, and the speedup is compared with the ceiling:
tokens per forward, times the cost of a forward without drafts over the cost with all drafts (Leviathan et al. 2022, arXiv
2211.17192, theorem 3.8).
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from headway import model_path
from headway.decoding import DecodeStats, Engine, Request, SamplingParams, heads_drafter
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.drafters.oracle import oracle_drafter
from headway.errors import ConfigError
from headway.evaluation.benchmarks.speed import greedy
from headway.evaluation.benchmarks.timing import wait
from headway.evaluation.configs import PlanConfig
from headway.evaluation.loading import keep_special_tokens
from headway.evaluation.results import as_json
from headway.files import write_json
from headway.model import HeadwayModel, load_trunk
from headway.reports.tables import print_table

STEPS = ("draft", "verify", "accept")


@dataclass(frozen=True)
class RateResult:
    """Speedup at an acceptance rate."""

    tokens_per_forward: float
    speed: float  # over autoregressive decoding, median over repeats
    speed_min: float
    speed_max: float
    ceiling: float  # largest speedup that verification allows
    of_ceiling: float
    identical: bool  # output equal to autoregressive decoding


@dataclass(frozen=True)
class SpeedupEstimate:
    """Costs and speedups at a batch size, by number of drafts and by acceptance rate."""

    rounds: dict[int, dict[str, float]]  # seconds of a decode step, by part of the step
    cost: dict[int, float]  # time of a decode step over one without drafts
    pays_from: dict[int, float | None]  # break-even acceptance rate; None if no rate pays
    plain_over_transformers: float  # speed of autoregressive decoding over transformers' generate
    rates: dict[str, RateResult]


@dataclass(frozen=True)
class EstimateResult:
    """Estimates by batch size."""

    settings: PlanConfig
    batches: dict[int, SpeedupEstimate]


def run(config: PlanConfig) -> EstimateResult:
    """Measure, print a table a batch size, and write JSON.

    Raises:
        CheckpointError: the model cannot be loaded.
        ConfigError: the shape cannot be read.
    """
    torch.set_num_threads(config.threads)
    dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
    trunk: Any = _random_llama(config.shape) if config.shape else load_trunk(model_path(config.model))
    keep_special_tokens(trunk)
    model = HeadwayModel.from_trunk(trunk.to(dtype), family=config.family, count=config.heads).eval()
    batches = {}
    for batch in config.batches:
        batches[batch] = estimate = measure(config, model, batch)
        _print(estimate, config, batch)
    print(
        "costs: time of a decode step over a step without drafts. pays from: acceptance rate at which drafting is no slower. "
        "accepted: speedup over autoregressive decoding, measured with drafts accepted at that rate, and (share of its ceiling)."
    )
    result = EstimateResult(config, batches)
    if config.output_file is not None:
        write_json(config.output_file, as_json(result))
        print(f"Results: {config.output_file}")
    return result


def measure(config: PlanConfig, model: HeadwayModel, batch: int) -> SpeedupEstimate:
    """Estimate at a batch size, with `config.turns` random prompts a batch slot."""
    generator = torch.Generator().manual_seed(config.seed)
    ids = torch.randint(3, model.view.config.vocab_size, (batch * config.turns, config.context), generator=generator)
    prompts, length = ids.tolist(), greedy(config.max_new_tokens) | {"eos_token_id": None}
    heads = None if config.free else heads_drafter("chain")
    controllers: dict[float, DraftLengthController] = {}
    texts, _ = _decode(model, prompts, batch, length)
    answers = {tuple(prompt): text for prompt, text in zip(prompts, texts, strict=True)}

    def with_oracle(rate: float, depth: int, adaptive: bool = False) -> tuple[list[list[int]], DecodeStats]:
        oracle = oracle_drafter(answers, rate, depth, heads)
        if not adaptive:
            return _decode(model, prompts, batch, length, oracle)
        controller = controllers.setdefault(rate, DraftLengthController(range(depth + 1)))
        return _decode(model, prompts, batch, length, oracle, lambda _: controller)

    depths = range(1, config.heads + 1)
    step_seconds: dict[int, list[dict[str, float]]] = {n: [] for n in range(config.heads + 1)}
    runs: dict[float, list[tuple[list[list[int]], DecodeStats]]] = {rate: [] for rate in config.rates}
    baselines: list[DecodeStats] = []
    over_transformers: list[float] = []  # of one batch, prefill included
    for repeat in track(range(config.repeats + 1), f"batch {batch}", transient=True):  # repeat 0 is a warm-up
        stats_by_depth = {0: _decode(model, prompts, batch, length)[1]} | {n: with_oracle(0.5, n)[1] for n in depths}
        runs_at_rates = {rate: with_oracle(rate, config.heads, config.adaptive) for rate in config.rates}
        ratio = _speed_over_transformers(model, ids[:batch], length)
        if repeat:
            over_transformers.append(ratio)
            baselines.append(stats_by_depth[0])
            for rate, run_at_rate in runs_at_rates.items():
                runs[rate].append(run_at_rate)
            for n, stats in stats_by_depth.items():
                # steps of a full batch; steps of fewer sequences count in part, prefill forwards not at all
                steps = max(1.0, (stats.num_sequence_forwards - len(prompts)) / batch)
                step_seconds[n].append({step: stats.seconds.get(step, 0.0) / steps for step in STEPS})
    typical = {n: {step: statistics.median(one[step] for one in every) for step in STEPS} for n, every in step_seconds.items()}
    total = {n: sum(seconds.values()) for n, seconds in typical.items()}
    forward_cost = typical[config.heads]["verify"] / typical[0]["verify"]
    return SpeedupEstimate(
        rounds=typical,
        cost={n: total[n] / total[0] for n in total},
        pays_from={n: _break_even(n, total[n] / total[0]) for n in depths},
        plain_over_transformers=statistics.median(over_transformers),
        rates={str(rate): _rate_result(runs[rate], baselines, texts, forward_cost) for rate in config.rates},
    )


def _rate_result(
    runs: list[tuple[list[list[int]], DecodeStats]],
    baselines: list[DecodeStats],
    expected: list[list[int]],
    forward_cost: float,
) -> RateResult:
    """Speedup of runs (texts, statistics), paired by repeat with autoregressive decoding.

    Args:
        forward_cost: time of a forward over all drafts, over the time without drafts.
    """
    per_forward = statistics.median(stats.tokens_per_forward for _, stats in runs)
    ratios = [_decode_rate(stats) / _decode_rate(base) for (_, stats), base in zip(runs, baselines, strict=True)]
    speed, ceiling = statistics.median(ratios), per_forward / forward_cost
    identical = all(texts == expected for texts, _ in runs)
    return RateResult(per_forward, speed, min(ratios), max(ratios), ceiling, speed / ceiling, identical)


def _decode(
    model: HeadwayModel,
    prompts: list[list[int]],
    batch: int,
    length: dict[str, Any],
    drafter: DrafterFactory | None = None,
    controller: Callable[[Any], DraftLengthController] | None = None,
) -> tuple[list[list[int]], DecodeStats]:
    """The texts, prompts included. `batch` sequences are decoded at once; the next prompt starts as soon as a sequence ends."""
    adaptive = controller is not None
    engine = Engine(model, drafter, max_batch_size=batch, adaptive=adaptive, controller=controller)
    handles = [engine.submit(Request(prompt, SamplingParams(options=length))) for prompt in prompts]
    engine.run()
    return [[*prompt, *handle.token_ids] for prompt, handle in zip(prompts, handles, strict=True)], engine.stats()


def _speed_over_transformers(model: HeadwayModel, ids: Tensor, length: dict[str, Any]) -> float:
    """Speed of autoregressive decoding over transformers' generate, for a batch."""
    trunk: Any = model.trunk
    began = time.perf_counter()
    model.generate(ids, speculative=False, **length)
    wait(model.device)
    middle = time.perf_counter()
    with torch.inference_mode():
        trunk.generate(ids, attention_mask=torch.ones_like(ids), **length)
    wait(model.device)
    return (time.perf_counter() - middle) / (middle - began)


def _decode_rate(stats: DecodeStats) -> float:
    """Tokens per second after the prefill."""
    return stats.tokens / (sum(stats.seconds.values()) - stats.seconds.get("prefill", 0.0))


def _break_even(depth: int, cost: float) -> float | None:
    """Solution a of 1 + a + a^2 + ... + a^depth = cost, the break-even acceptance rate; None if no rate reaches the cost."""
    low, high = 0.0, 1.0
    if cost > depth + 1:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(depth + 1)) < cost else (low, middle)
    return high


def _random_llama(shape: str) -> LlamaForCausalLM:
    """A randomly initialised Llama. Raises ConfigError if the shape cannot be read."""
    try:
        hidden, layers, heads, groups, mlp, vocabulary = map(int, shape.split("x"))
    except ValueError as error:
        raise ConfigError(
            f"A shape is HIDDENxLAYERSxHEADSxKV_HEADSxMLPxVOCABULARY, such as 576x30x9x3x1536x49152; got {shape!r}."
        ) from error
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def _print(estimate: SpeedupEstimate, config: PlanConfig, batch: int) -> None:
    drafts = "free drafts" if config.free else f"{config.family} heads"
    title = f"{config.shape or config.model}, batch {batch}, {config.heads} {drafts}, {config.threads} thread(s), {config.dtype}"
    depths, rows = list(estimate.pays_from), []
    for n in depths:
        pays = estimate.pays_from[n]
        cells = [str(n), f"{estimate.cost[n]:.2f}x", "never" if pays is None else f"{pays:.0%}"]
        if n == depths[-1]:
            cells += [f"{result.speed:.2f}x ({result.of_ceiling:.2f})" for result in estimate.rates.values()]
        else:
            expected = (sum(float(rate) ** i for i in range(n + 1)) for rate in estimate.rates)
            cells += [f"{tokens / estimate.cost[n]:.2f}x" for tokens in expected]
        rows.append(cells)
    headings = ["drafts", "costs", "pays from", *(f"accepted {float(rate):.0%}" for rate in estimate.rates)]
    plain = f"Autoregressive decoding beside transformers' generate: {estimate.plain_over_transformers:.2f}x its speed."
    print_table(title, headings, rows, [plain])
