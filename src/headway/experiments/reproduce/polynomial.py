"""Section 4.2: does predicting several tokens help to calculate with polynomials of F7[X]/(X^5), in and out of domain?

The score is the share of expressions with m operations whose answer, five coefficients written greedily, is right. Only answers are
learnt: operands are random, and where their tokens are learnt too, tiny models get nowhere in the time that a CPU has.
"""

import random
from collections.abc import Sequence

import torch

from headway.data import Collator, Encoded, PackedRow, row_of
from headway.data.generated.polynomial import DEGREE, SYMBOLS, Expression, polynomial_problems, random_expression
from headway.experiments.reproduce.configs import PolynomialConfig
from headway.experiments.reproduce.models import word_tokenizer
from headway.experiments.reproduce.runs import Measures
from headway.experiments.reproduce.scratch import Task
from headway.model import HeadwayModel
from headway.ops import IGNORE

TEST_SEED = 1_000_003


def task_of(config: PolynomialConfig, pauses: int) -> Task:
    """Expressions of a seed with so many pause tokens before the equals sign."""
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
    length = longest(max(config.trained, config.tested)) + pauses

    def score(model: HeadwayModel) -> Measures:
        found = {f"m={m}": exact(model, rows) for m, rows in tests.items()}
        inside = [found[f"m={m}"] for m in tests if m <= trained]
        outside = [found[f"m={m}"] for m in tests if m > trained]
        found["in domain"] = sum(inside) / len(inside)
        return found | ({"out of domain": sum(outside) / len(outside)} if outside else {})

    return Task(tokenizer, length, row, score)


def longest(operations: int) -> int:
    """Tokens of the longest expression with its answer and <eos>: every operand in full, every inner operation in brackets."""
    return DEGREE * (operations + 1) + operations + 2 * (operations - 1) + 1 + DEGREE + 1


@torch.no_grad()
def exact(model: HeadwayModel, rows: Sequence[PackedRow], batch_size: int = 256) -> float:
    """Share of rows whose greedy answer is right.

    One pass over the right answer tells: it is the greedy one if and only if each token is the first choice after those before.
    """
    right = 0
    collate = Collator(0)
    for start in range(0, len(rows), batch_size):
        batch = {name: value.to(model.device) for name, value in collate(rows[start : start + batch_size]).items()}
        states = model(batch["input_ids"], batch["segments"], count=0).hidden_states[0]
        chosen = model.unembedding.logits(states[:, :-1]).argmax(-1)  # (batch, seq - 1)
        wanted = batch["labels"][:, 1:]
        right += int(((chosen == wanted) | (wanted == IGNORE)).all(-1).sum())
    return right / len(rows)
