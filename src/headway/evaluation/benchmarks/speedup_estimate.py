"""`headway bench plan`: would heads pay on this model and machine, and how often must they be right?

Rounds over 0, 1, 2, ... drafts are timed with fresh heads at work; their number of kept drafts is arithmetic. At each rate
asked for, decoding is then run with drafts that are right that often, and compared with the ceiling: tokens a forward times
what a forward over one token a row costs beside one over all drafts (Leviathan et al. 2022, arXiv 2211.17192, theorem 3.8).
"""

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from headway import model_path
from headway.decoding import DecodeStats, Engine, heads_drafter
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.drafters.oracle import oracle_drafter
from headway.errors import ConfigError
from headway.evaluation.benchmarks.timing import wait
from headway.evaluation.configs import PlanConfig
from headway.files import write_json
from headway.model import HeadwayModel, load_trunk


def run(config: PlanConfig) -> dict[str, Any]:
    """Measure, print, and write the JSON if asked. Raises CheckpointError for a model that cannot be loaded."""
    torch.set_num_threads(config.threads)
    dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
    trunk: Any = _shaped(config.shape) if config.shape else load_trunk(model_path(config.model))
    model = HeadwayModel.from_trunk(trunk.to(dtype), family=config.family, count=config.heads).eval()
    console = Console()
    results: dict[str, Any] = {"settings": asdict(config) | {"output_file": str(config.output_file)}, "batches": {}}
    for batch in config.batches:
        results["batches"][str(batch)] = found = measure(config, model, batch)
        console.print(_table(found, config, batch))
        console.print(f"Plain decoding beside transformers' generate: {found['plain_over_transformers']:.2f}x its speed.")
    console.print(
        "costs: time of a round beside one without drafts. pays from: share of drafts that must be right for it to be no slower. "
        "At each rate: speed over plain decoding as measured with drafts that are right that often, and (of its ceiling)."
    )
    if config.output_file is not None:
        write_json(config.output_file, results)
        console.print(f"Figures: {config.output_file}")
    return results


def measure(config: PlanConfig, model: HeadwayModel, batch: int) -> dict[str, Any]:
    """One batch size: seconds of rounds by number of drafts, and speeds at the rates; `config.turns` prompts for each place."""
    g = torch.Generator().manual_seed(config.seed)
    ids = torch.randint(3, model.view.config.vocab_size, (batch * config.turns, config.context), generator=g)
    prompts, length = ids.tolist(), {"max_new_tokens": config.max_new_tokens, "eos_token_id": None, "do_sample": False}
    heads = None if config.free else heads_drafter("chain")
    planners: dict[float, DraftLengthController] = {}
    texts, _ = _decode(model, prompts, batch, length)
    answers = {tuple(prompt): text for prompt, text in zip(prompts, texts, strict=True)}

    def told(rate: float, depth: int, adaptive: bool = False) -> tuple[list[list[int]], DecodeStats]:
        controller = planners.setdefault(rate, DraftLengthController(range(depth + 1))) if adaptive else None
        return _decode(model, prompts, batch, length, oracle_drafter(answers, rate, depth, heads), controller)

    depths = range(1, config.heads + 1)
    rounds: dict[int, list[dict[str, float]]] = {n: [] for n in range(config.heads + 1)}
    runs: dict[float, list[tuple[list[list[int]], DecodeStats]]] = {rate: [] for rate in config.rates}
    plains: list[DecodeStats] = []
    over_transformers: list[float] = []  # plain decoding of one batch, the prompts included
    for repeat in track(range(config.repeats + 1), f"batch {batch}", transient=True):  # the first warms up
        stats = {0: _decode(model, prompts, batch, length)[1]} | {n: told(0.5, n)[1] for n in depths}
        at_rates = {rate: told(rate, config.heads, config.adaptive) for rate in config.rates}
        ratio = _over_transformers(model, ids[:batch], length)
        if repeat:
            over_transformers.append(ratio)
            plains.append(stats[0])
            for rate, run in at_rates.items():
                runs[rate].append(run)
            for n, found in stats.items():
                full = (found.forwards - len(prompts)) / batch  # rounds, those of fewer rows in part; prompts have one too
                rounds[n].append({step: found.seconds.get(step, 0.0) / max(1.0, full) for step in ("draft", "verify", "accept")})
    typical = {n: {step: statistics.median(r[step] for r in found) for step in found[0]} for n, found in rounds.items()}
    total = {n: sum(steps.values()) for n, steps in typical.items()}
    figures: dict[str, Any] = {
        "rounds": typical,
        "cost": {n: total[n] / total[0] for n in total},
        "pays_from": {n: _break_even(n, total[n] / total[0]) for n in depths},
        "plain_over_transformers": statistics.median(over_transformers),
        "rates": {},
    }
    forward = typical[config.heads]["verify"] / typical[0]["verify"]
    for rate, found_at in runs.items():
        per_forward = statistics.median(run.tokens_per_forward for _, run in found_at)
        ratios = [_rate(run) / _rate(base) for (_, run), base in zip(found_at, plains, strict=True)]
        figures["rates"][str(rate)] = {
            "tokens_per_forward": per_forward,
            "speed": statistics.median(ratios),
            "speed_min": min(ratios),
            "speed_max": max(ratios),
            "ceiling": per_forward / forward,
            "of_ceiling": statistics.median(ratios) / (per_forward / forward),
            "identical": all(found == texts for found, _ in found_at),
        }
    return figures


def _decode(
    model: HeadwayModel,
    prompts: list[list[int]],
    batch: int,
    length: dict[str, Any],
    drafter: DrafterFactory | None = None,
    controller: DraftLengthController | None = None,
) -> tuple[list[list[int]], DecodeStats]:
    """The texts, prompts included; `batch` rows at once, and another as soon as one is finished."""
    engine = Engine(model, drafter, max_rows=batch, adaptive=False)
    engine.controller = controller
    rows = [engine.submit(prompt, **length) for prompt in prompts]
    engine.run()
    return [row.tokens for row in rows], engine.stats_collector.stats()


def _over_transformers(model: HeadwayModel, ids: Tensor, length: dict[str, Any]) -> float:
    trunk: Any = model.trunk
    began = time.perf_counter()
    model.generate(ids, plain=True, **length)
    wait(model.device)
    middle = time.perf_counter()
    with torch.inference_mode():
        trunk.generate(ids, attention_mask=torch.ones_like(ids), **length)
    wait(model.device)
    return (time.perf_counter() - middle) / (middle - began)


def _rate(stats: DecodeStats) -> float:
    """Tokens a second after the prompts."""
    return stats.tokens / (sum(stats.seconds.values()) - stats.seconds.get("prefill", 0.0))


def _break_even(depth: int, cost: float) -> float | None:
    """The share of right drafts at which 1 + a + a^2 + ... + a^depth tokens a round make up for its cost; None if none does."""
    low, high = 0.0, 1.0
    if cost > depth + 1:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(depth + 1)) < cost else (low, middle)
    return high


def _shaped(shape: str) -> LlamaForCausalLM:
    """A random Llama. Raises ConfigError where the shape cannot be read."""
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


def _table(found: dict[str, Any], config: PlanConfig, batch: int) -> Table:
    name = config.shape or config.model
    heads = "free drafts" if config.free else f"{config.family} heads"
    title = f"{name}, batch {batch}, {config.heads} {heads}, {config.threads} thread(s), {config.dtype}"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("drafts", "costs", "pays from", *(f"right {float(rate):.0%}" for rate in found["rates"])):
        table.add_column(column, justify="right", no_wrap=True)
    depths = [n for n in found["cost"] if n]
    for n in depths:
        pays = found["pays_from"][n]
        cells = [str(n), f"{found['cost'][n]:.2f}x", "never" if pays is None else f"{pays:.0%}"]
        if n == depths[-1]:
            cells += [f"{r['speed']:.2f}x ({r['of_ceiling']:.2f})" for r in found["rates"].values()]
        else:
            cells += [f"{sum(float(rate) ** i for i in range(n + 1)) / found['cost'][n]:.2f}x" for rate in found["rates"]]
        table.add_row(*cells)
    return table
