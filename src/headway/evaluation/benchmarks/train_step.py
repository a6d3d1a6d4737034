"""`headway bench train`: memory and time of a training step with heads, beside transformers' next-token step.

Every case runs in a separate process with separate peak memory. The FLOPs of the heads are counted: 6 a weight and token in
layers, heads and unembeddings (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from headway.errors import HeadwayError
from headway.evaluation.configs import BenchConfig
from headway.files import write_json
from headway.reports.tables import print_table

STOCK, NEXT_TOKEN, MULTI_TOKEN = CASES = ("stock next-token", "headway next-token", "headway multi-token")
REPEATS = 3


@dataclass(frozen=True)
class StepCost:
    """Cost of a training step."""

    peak: float  # MiB above the memory in use before the first step
    seconds: float  # median over steps
    flops: float  # counted, not measured


@dataclass(frozen=True)
class TrainBenchResult:
    """Costs by case and repeat. Ratios are multi-token over stock, by repeat."""

    settings: dict[str, Any]
    cases: dict[str, list[StepCost]]
    time_ratio: list[float]
    predicted_time_ratio: float  # ratio of the FLOPs
    time_over_prediction: float
    memory_ratio: list[float]


def run(config: BenchConfig) -> TrainBenchResult:
    """Measure the cases in turn, print a table, and write JSON.

    Raises:
        HeadwayError: a case fails.
    """
    cases: dict[str, list[StepCost]] = {case: [] for case in CASES}
    for _ in range(REPEATS):
        for case in CASES:
            cases[case].append(_run_case(config, case))
    stock, multi = cases[STOCK], cases[MULTI_TOKEN]
    predicted = multi[0].flops / stock[0].flops
    times = [with_heads.seconds / base.seconds for with_heads, base in zip(multi, stock, strict=True)]
    memory = [with_heads.peak / base.peak for with_heads, base in zip(multi, stock, strict=True)]
    settings = asdict(config) | {"output_file": str(config.output_file)}
    result = TrainBenchResult(settings, cases, times, predicted, statistics.median(times) / predicted, memory)
    rows = [
        [
            case,
            f"{statistics.median(cost.peak for cost in costs):.0f}",
            f"{statistics.median(cost.seconds for cost in costs):.2f}",
            f"{costs[0].flops / stock[0].flops:.2f}",
        ]
        for case, costs in cases.items()
    ]
    print_table(
        f"A training step: {config.heads} heads, vocabulary {config.vocabulary:,}, {config.rows} x {config.max_length} tokens",
        ["case", "peak above start (MiB)", "seconds a step", "FLOPs over stock"],
        rows,
        [
            f"Multi-token over stock: memory {statistics.median(memory):.2f}x ({min(memory):.2f}-{max(memory):.2f}), time "
            f"{statistics.median(times):.2f}x ({min(times):.2f}-{max(times):.2f}); the FLOPs predict {predicted:.2f}x. "
            f"{config.threads} thread(s), float32."
        ],
    )
    if config.output_file is not None:
        write_json(config.output_file, asdict(result))
    return result


def _run_case(config: BenchConfig, case: str) -> StepCost:
    """Cost of a case, measured in a separate process."""
    arguments = json.dumps({**asdict(config), "output_file": None, "case": case})
    done = subprocess.run([sys.executable, "-m", __name__, arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HeadwayError(f"The case {case!r} failed: {done.stderr.strip().splitlines()[-1:]}")
    return StepCost(**json.loads(done.stdout.strip().splitlines()[-1]))


def _measure_case(arguments: dict[str, Any]) -> StepCost:
    """Cost of a case, measured in this process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from headway.model import HeadwayModel
    from headway.objectives import MultiToken, NextToken

    torch.set_num_threads(arguments["threads"])
    torch.manual_seed(arguments["seed"])
    width = arguments["hidden_size"]
    config = LlamaConfig(
        vocab_size=arguments["vocabulary"],
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=arguments["layers"],
        num_attention_heads=max(1, width // 64),
        tie_word_embeddings=True,
    )
    multi = arguments["case"] == MULTI_TOKEN
    count = arguments["heads"] if multi else 0
    trunk: Any = LlamaForCausalLM(config)
    model = HeadwayModel.from_trunk(trunk, count=count).train()
    ids = torch.randint(0, config.vocab_size, (arguments["rows"], arguments["max_length"]))
    batch = {"input_ids": ids, "labels": ids}
    objective = MultiToken() if multi else NextToken()
    start, seconds = _resident(), []
    for step in range(arguments["repeats"] + 1):
        began = time.perf_counter()
        if arguments["case"] == STOCK:
            trunk(input_ids=ids, labels=ids).loss.backward()
        else:
            loss: Any = objective.loss(model, batch, 0.0).total
            loss.backward()
        if step:
            seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start
    weights = sum(p.numel() for p in model.parameters()) - trunk.get_input_embeddings().weight.numel()
    weights += (count + 1) * config.vocab_size * width  # one unembedding for each offset
    return StepCost(peak, statistics.median(seconds), 6.0 * weights * ids.numel())


def _resident() -> float:
    """Resident memory of this process in MiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_case(json.loads(sys.argv[1])))))
