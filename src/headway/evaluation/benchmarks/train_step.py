"""Memory and time of a training step with heads, beside a stock transformers next-token step of the same trunk and batch.

Each case runs in a process of its own, so that its peak is its own. The FLOPs that heads add are counted, not guessed: 6 for each
weight and token, in layers, heads and unembeddings (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from headway.errors import HeadwayError
from headway.evaluation.configs import BenchConfig
from headway.files import write_json

CASES = ("stock next-token", "headway next-token", "headway multi-token")
ROUNDS = 3


def run(config: BenchConfig) -> dict[str, Any]:
    """Measure the cases in turns, print a table, write the JSON if asked. Raises HeadwayError where a case fails."""
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(ROUNDS):
        for case in CASES:
            arguments = json.dumps({**asdict(config), "output_file": None, "case": case})
            done = subprocess.run([sys.executable, "-m", __name__, arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                raise HeadwayError(f"The case {case!r} failed: {done.stderr.strip().splitlines()[-1:]}")
            found[case].append(json.loads(done.stdout.strip().splitlines()[-1]))
    stock, multi = found[CASES[0]], found[CASES[2]]
    predicted = multi[0]["flops"] / stock[0]["flops"]
    times = [m["seconds"] / s["seconds"] for m, s in zip(multi, stock, strict=True)]
    memory = [m["peak"] / s["peak"] for m, s in zip(multi, stock, strict=True)]
    results = {
        "settings": asdict(config) | {"output_file": str(config.output_file)},
        "cases": found,
        "time_ratio": times,
        "predicted_time_ratio": predicted,
        "time_over_prediction": statistics.median(times) / predicted,
        "memory_ratio": memory,
    }
    table = Table(
        title=f"A training step: {config.heads} heads, vocabulary {config.vocabulary:,}, {config.rows} x {config.max_length} tokens"
    )
    for name in ("case", "peak above start (MiB)", "seconds a step", "FLOPs over stock"):
        table.add_column(name, justify="left" if name == "case" else "right")
    for case in CASES:
        peaks, seconds = [c["peak"] for c in found[case]], [c["seconds"] for c in found[case]]
        share = found[case][0]["flops"] / stock[0]["flops"]
        table.add_row(case, f"{statistics.median(peaks):.0f}", f"{statistics.median(seconds):.2f}", f"{share:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"Multi-token over stock: memory {statistics.median(memory):.2f}x ({min(memory):.2f}-{max(memory):.2f}), time "
        f"{statistics.median(times):.2f}x ({min(times):.2f}-{max(times):.2f}) where the FLOPs predict {predicted:.2f}x. "
        f"{config.threads} thread(s), float32."
    )
    if config.output_file is not None:
        write_json(config.output_file, results)
    return results


def _case(arguments: dict[str, Any]) -> dict[str, float]:
    """One case in this process: MiB above what was in use before the first step, seconds, FLOPs."""
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
    multi = arguments["case"] == CASES[2]
    count = arguments["heads"] if multi else 0
    trunk: Any = LlamaForCausalLM(config)
    model = HeadwayModel.from_trunk(trunk, count=count).train()
    ids = torch.randint(0, config.vocab_size, (arguments["rows"], arguments["max_length"]))
    batch = {"input_ids": ids, "labels": ids}
    objective = MultiToken() if multi else NextToken()
    start, seconds = _resident(), []
    for step in range(arguments["repeats"] + 1):
        began = time.perf_counter()
        if arguments["case"] == CASES[0]:
            trunk(input_ids=ids, labels=ids).loss.backward()
        else:
            loss: Any = objective.loss(model, batch, 0.0).total
            loss.backward()
        if step:
            seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start
    weights = sum(p.numel() for p in model.parameters()) - trunk.get_input_embeddings().weight.numel()
    weights += (count + 1) * config.vocab_size * width  # one unembedding an offset
    return {"peak": peak, "seconds": statistics.median(seconds), "flops": 6.0 * weights * ids.numel()}


def _resident() -> float:
    """MiB that this process holds now."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


if __name__ == "__main__":
    print(json.dumps(_case(json.loads(sys.argv[1]))))
