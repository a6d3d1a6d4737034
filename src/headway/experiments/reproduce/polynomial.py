"""Polynomial arithmetic in F7[X]/(X^5) (Gloeckle et al. 2024, section 4.2): share of expressions with a right greedy answer.

An answer has five coefficients. Only answers are label tokens: operands are random, and tiny models that learn operands too do not
learn to calculate in the time of a CPU.
"""

import random
from collections.abc import Sequence

import torch

from headway.data import Collator, Encoded, PackedRow, row_of
from headway.data.generated.polynomial import DEGREE, SYMBOLS, Expression, polynomial_problems, random_expression
from headway.experiments.reproduce.configs import PolynomialConfig
from headway.experiments.reproduce.models import word_tokenizer
from headway.experiments.reproduce.scratch import GeneratedTask, Metrics
from headway.model import HeadwayModel
from headway.ops import IGNORE

TEST_SEED = 1_000_003


def task_of(config: PolynomialConfig, pauses: int) -> GeneratedTask:
    """Expressions with a number of pause tokens before the equals sign."""
    assert config.trained is not None and config.tested is not None and config.test_examples is not None
    tokenizer = word_tokenizer(SYMBOLS)
    ids, trained = tokenizer.get_vocab(), config.trained

    def encoded(expression: Expression) -> Encoded:
        example = expression.example(pauses)
        prompt = [ids[symbol] for symbol in example["prompt"]]
        answer = [*(ids[symbol] for symbol in example["completion"]), tokenizer.eos_token_id]
        return Encoded(input_ids=prompt + answer, labels=[IGNORE] * len(prompt) + answer)

    def row(seed: int, index: int) -> PackedRow:
        random_ = random.Random(f"polynomial {seed} {index}")
        return row_of([encoded(random_expression(random_.randint(1, trained), random_))])

    tests = {
        m: [row_of([encoded(one)]) for one in polynomial_problems(config.test_examples, (m, m), TEST_SEED, "test")]
        for m in range(1, config.tested + 1)
    }
    max_length = longest(max(config.trained, config.tested)) + pauses

    def score(model: HeadwayModel) -> Metrics:
        metrics = {f"m={m}": exact(model, rows) for m, rows in tests.items()}
        inside = [metrics[f"m={m}"] for m in tests if m <= trained]
        outside = [metrics[f"m={m}"] for m in tests if m > trained]
        metrics["in domain"] = sum(inside) / len(inside)
        return metrics | ({"out of domain": sum(outside) / len(outside)} if outside else {})

    return GeneratedTask(tokenizer, max_length, row, score)


def longest(operations: int) -> int:
    """Tokens of the longest expression with answer and <eos>: operands with all coefficients, inner operations in brackets."""
    return DEGREE * (operations + 1) + operations + 2 * (operations - 1) + 1 + DEGREE + 1


@torch.no_grad()
def exact(model: HeadwayModel, rows: Sequence[PackedRow], batch_size: int = 256) -> float:
    """Share of rows with a right greedy answer.

    One forward over the right answer is enough: decoding is right if and only if every label token is the top-1 prediction.
    """
    right = 0
    collate = Collator(0)
    for start in range(0, len(rows), batch_size):
        batch = {name: value.to(model.device) for name, value in collate(rows[start : start + batch_size]).items()}
        states = model(batch["input_ids"], batch["segments"], count=0).hidden_states[0]
        predicted = model.unembedding.logits(states[:, :-1]).argmax(-1)  # (batch, seq - 1)
        labels = batch["labels"][:, 1:]
        right += int(((predicted == labels) | (labels == IGNORE)).all(-1).sum())
    return right / len(rows)
