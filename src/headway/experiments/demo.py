"""`headway demo`: train the embedded model on generated word problems with no head, one head and two heads, and compare.

The comparison takes minutes and reports scores and decoding speed.
"""

from rich.console import Console
from rich.markup import escape

from headway.data import PromptCompletion, load_examples
from headway.experiments.compare import compare
from headway.experiments.compare.configs import CompareConfig, DemoConfig, TaskConfig
from headway.experiments.compare.results import Comparison


def run(config: DemoConfig) -> Comparison:
    """Run the comparison of the demo. Raises: as `headway.experiments.compare.compare.run`."""
    data = f"word-problems:{config.level}"
    (example,) = load_examples(data, "test", 1)
    assert isinstance(example, PromptCompletion)
    console = Console()
    console.print(
        f"Word problems of level {config.level}, for example:\n  [dim]{escape(example.prompt + example.completion)}[/dim]"
    )
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
                "next-token": {"objective": "next-token"},  # keeps the pretrained heads, untrained from here on
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
