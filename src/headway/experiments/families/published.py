"""Published results of draft heads, for orientation: models, data and hardware differ from a comparison here.

Tokens per forward count the bonus token, as everywhere in Headway.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """A line of a published table."""

    name: str
    conditions: str
    source: str
    tokens_per_forward: float
    ratio: float | None = None  # speed-up over autoregressive decoding
    acceptance: tuple[float, ...] = ()  # by position, of the steps that reach the position


def conditional_rates(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Acceptance rates of the steps that reach a position, from acceptance rates of all steps."""
    return tuple(share / before for share, before in zip(shares, (1.0, *shares), strict=False))


# Gloeckle et al. print tokens per forward with 1, 2, 3 and 4 heads; acceptance follows from the differences. FastMTP and
# speculators print rates of all steps; 1 plus the sum of the rates is the printed number of tokens per forward.
PUBLISHED: tuple[PublishedResult, ...] = (
    PublishedResult(
        "Gloeckle et al., code", "7B, 4 heads from pretraining", "2404.19737, table S2", 3.50, 3.05, (0.94, 0.89, 0.86)
    ),
    PublishedResult(
        "Gloeckle et al., Wikipedia", "7B, 4 heads from pretraining", "2404.19737, table S2", 3.12, 2.74, (0.88, 0.78, 0.80)
    ),
    PublishedResult("FastMTP", "MiMo-7B, 7 tasks, chain, A10", "2509.18362", 2.73, 1.81, conditional_rates((0.81, 0.56, 0.36))),
    PublishedResult(
        "speculators MTP", "Qwen3.5-9B, GSM8K, 3 prompts, H200", "speculators, examples/train", 3.23, None,
        conditional_rates((0.894, 0.723, 0.617)),
    ),
    PublishedResult("Medusa", "Vicuna-7B, MT-Bench, tree, H100", "2403.09919", 2.55, 2.39),
    PublishedResult("EAGLE", "Vicuna-7B, MT-Bench, tree, H100", "2403.09919", 3.96, 2.69),
    PublishedResult("ReDrafter", "Vicuna-7B, MT-Bench, beams, H100", "2403.09919", 4.20, 2.80),
    PublishedResult("EAGLE-2", "Llama-3.1-8B, MT-Bench, tree", "2503.01840, ablation", 4.05, 3.16),
    PublishedResult("EAGLE-3", "Llama-3.1-8B, MT-Bench, tree", "2503.01840, ablation", 6.13, 4.40),
    PublishedResult("gated LoRA", "Tulu3-8B, 8 masks, mean of 13 tasks", "2507.11851", 3.17),
)  # fmt: skip
