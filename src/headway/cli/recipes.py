"""Table of the training recipes (`headway heads train --list-recipes`)."""

from headway.reports.tables import framed_table
from headway.training.recipes import RECIPES

HEADINGS = ["recipe", "heads", "learn from", "weights", "rate", "schedule", "warm-up", "decay", "beta2", "clip", "own samples"]


def table_of_recipes() -> str:
    """Settings of every recipe as a table, and a second table of their sources."""
    weights = {"constant": "1", "medusa": "0.8^k", "beta": "{beta}^k"}
    rows = [
        [
            *(name, str(recipe.num_heads), "labels" if recipe.objective == "multi-token" else "soft"),
            *(weights[recipe.head_weights].format(beta=recipe.beta), f"{recipe.learning_rate:g}", recipe.lr_scheduler),
            *(f"{recipe.warmup_ratio:.2%}", f"{recipe.weight_decay:g}", f"{recipe.beta2:g}", f"{recipe.max_grad_norm:g}"),
            "yes" if recipe.own_samples else "no",
        ]
        for name, recipe in RECIPES.items()
    ]
    sources = [[name, recipe.source] for name, recipe in RECIPES.items()]
    return f"{framed_table(HEADINGS, rows)}\n{framed_table(['recipe', 'source'], sources)}"
