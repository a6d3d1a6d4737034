"""`headway heads train`: heads learn to look ahead while the model they sit on stays as it is."""

from headway.cli.console import say
from headway.config import load
from headway.reports.tables import framed_table
from headway.training.configs import HeadsTrainConfig

ABOUT = (
    "Attach heads to a model that stays frozen, and train them on your data. Settings that are not given are those of a published "
    "recipe of the heads' family (--list-recipes); most advise to train on the model's own samples (headway heads distill)."
)


def run(arguments: list[str]) -> None:
    if "--list-recipes" in arguments:  # needs no model
        print(recipes())
        return
    config = load(HeadsTrainConfig, overrides=arguments, prog="headway heads train", about=ABOUT)
    from headway.training import train_heads  # after --help has had its chance: this takes seconds

    say(f"The heads are in {train_heads(config)}")


def recipes() -> str:
    """What each recipe fills in, as a table."""
    from headway.training.recipes import RECIPES

    headings = ["recipe", "heads", "learn from", "weights", "rate", "schedule", "warm-up", "decay", "beta2", "clip", "own samples"]
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
    return f"{framed_table(headings, rows)}\n{framed_table(['recipe', 'source'], sources)}"
