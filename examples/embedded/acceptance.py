"""Tokens a forward of sampled text by the rule that judges drafts, on the embedded model and its held-out texts.

python examples/embedded/acceptance.py --data runs/embedded [--prompts 8] [--new 48] [--seeds 3]

Prints a line a rule: the mean over seeds, and in brackets the least and the most.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from headway import HeadwayModel, embedded_path
from headway.decoding import DecodeStats, heads_drafter
from headway.decoding.drafters.base import Drafter, DrafterFactory, build_drafter

DOMAINS = ("stories", "arithmetic", "code", "books")
PROMPT = 32  # tokens
TEMPERATURES = (1.0, 0.7)


def tree(drafts: int) -> DrafterFactory:
    """The default trees, always of so many drafts."""

    def make(model, cache) -> Drafter:  # type: ignore[no-untyped-def]
        drafter = build_drafter(heads_drafter(), model, cache)
        drafter.draft_sizes = (0, drafts)
        return drafter

    return DrafterFactory(make)


WAYS = [
    *((f"chain, {rule}", heads_drafter("chain"), rule) for rule in ("token", "block", "coupled")),
    *((f"tree of {n}, {rule}", tree(n), rule) for n in (7, 15, 63) for rule in ("coupled", "multi-candidate")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=8, help="of each domain")
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    model = HeadwayModel.from_pretrained("embedded").eval()
    prompts = torch.tensor([ids for domain in DOMAINS for ids in read(arguments.data / f"valid-{domain}.jsonl", arguments.prompts)])
    for name, drafter, rule in WAYS:
        cells = []
        for temperature in TEMPERATURES:
            found = [
                model.generate(
                    prompts,
                    drafter=drafter,
                    acceptance=rule,
                    do_sample=True,
                    temperature=temperature,
                    max_new_tokens=arguments.new,
                    eos_token_id=None,
                    adaptive=False,
                    seed=seed,
                ).stats
                for seed in range(arguments.seeds)
            ]
            cells.append(cell(found))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def read(file: Path, count: int) -> list[list[int]]:
    """The first tokens of the first texts that are long enough."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_path())
    texts = (json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines())
    rows = (tokenizer(text[: 20 * PROMPT]).input_ids[:PROMPT] for text in texts)
    return [row for row in rows if len(row) == PROMPT][:count]


def cell(stats: Sequence[DecodeStats]) -> str:
    rates = [part.tokens_per_forward for part in stats]
    return f"{statistics.mean(rates):.2f} ({min(rates):.2f}-{max(rates):.2f})"


if __name__ == "__main__":
    main()
