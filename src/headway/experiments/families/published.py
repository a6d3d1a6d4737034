"""What papers and projects report of their heads: other models, data and hardware, so no target, but the size of things.

Every figure of tokens a forward counts the trunk's own token of each round, as Headway's do.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One line of somebody's table. `acceptance`: by position, of the rounds that reach it the share in which the draft stayed."""

    name: str
    conditions: str
    source: str
    tokens_per_forward: float
    ratio: float | None = None  # over plain decoding
    acceptance: tuple[float, ...] = ()


def given_all_before(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Of shares of all rounds in which draft j stayed, the shares of the rounds that reach it."""
    return tuple(share / before for share, before in zip(shares, (1.0, *shares), strict=False))


# Gloeckle et al. print tokens a forward with 1, 2, 3 and 4 heads at work; acceptance follows from their differences. FastMTP and
# speculators print shares of all rounds: 1 and their sum make the tokens a forward that they print beside them.
PUBLISHED = (
    Published("Gloeckle et al., code", "7B, 4 heads from pretraining", "2404.19737, table S2", 3.50, 3.05, (0.94, 0.89, 0.86)),
    Published("Gloeckle et al., Wikipedia", "7B, 4 heads from pretraining", "2404.19737, table S2", 3.12, 2.74, (0.88, 0.78, 0.80)),
    Published("FastMTP", "MiMo-7B, 7 tasks, chain, A10", "2509.18362", 2.73, 1.81, given_all_before((0.81, 0.56, 0.36))),
    Published(
        "speculators MTP", "Qwen3.5-9B, GSM8K, 3 prompts, H200", "speculators, examples/train", 3.23, None,
        given_all_before((0.894, 0.723, 0.617)),
    ),
    Published("Medusa", "Vicuna-7B, MT-Bench, tree, H100", "2403.09919", 2.55, 2.39),
    Published("EAGLE", "Vicuna-7B, MT-Bench, tree, H100", "2403.09919", 3.96, 2.69),
    Published("ReDrafter", "Vicuna-7B, MT-Bench, beams, H100", "2403.09919", 4.20, 2.80),
    Published("EAGLE-2", "Llama-3.1-8B, MT-Bench, tree", "2503.01840, ablation", 4.05, 3.16),
    Published("EAGLE-3", "Llama-3.1-8B, MT-Bench, tree", "2503.01840, ablation", 6.13, 4.40),
    Published("gated LoRA", "Tulu3-8B, 8 masks, mean of 13 tasks", "2507.11851", 3.17),
)  # fmt: skip


def plain() -> list[dict[str, Any]]:
    """As JSON holds it."""
    return [{**asdict(one), "acceptance": list(one.acceptance)} for one in PUBLISHED]
