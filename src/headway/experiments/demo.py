"""`headway demo`: does looking ahead help this model on this task, and how much faster does it get? Answered in minutes.

The embedded model learns generated word problems that it has never seen, three ways: towards the next token only, and towards
several with one and with two heads.
"""

from typing import Any

from rich.console import Console
from rich.markup import escape

from headway.data import PromptCompletion, load_examples
from headway.experiments.compare import compare
from headway.experiments.compare.configs import CompareConfig, DemoConfig, TaskConfig


def run(config: DemoConfig) -> dict[str, Any]:
    """A comparison with everything set. Raises: as `headway.experiments.compare.compare.run`."""
    data = f"word-problems:{config.level}"
    (example,) = load_examples(data, "test", 1)
    assert isinstance(example, PromptCompletion)
    console = Console()
    console.print(f"Word problems of level {config.level}, such as:\n  [dim]{escape(example.prompt + example.completion)}[/dim]")
    return compare.run(
        CompareConfig(
            output_dir=config.output_dir,
            model=config.model,
            tasks={
                f"word problems, level {config.level}": TaskConfig(
                    data=data, examples=config.examples, test_examples=config.test_examples, max_new_tokens=48
                )
            },
            arms={
                "next-token": {"objective": "next-token"},  # it keeps two heads, untouched, to see whether they still draft
                "1 head": {"num_heads": 1},
                "2 heads": {},
            },
            settings={
                "num_heads": 2,
                "total_weight": config.total_weight,
                "batch_size": config.batch_size,
                "max_length": config.max_length,
                "learning_rate": config.learning_rate,
                "heads_learning_rate": config.learning_rate,
                "log_steps": 5,
            },
            budget=config.steps,
            seeds=config.seeds,
            seed=config.seed,
            speed_prompts=config.speed_prompts,
            points=4,
            point_examples=50,
        )
    )
