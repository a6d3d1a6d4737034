"""Number of heads against model size (Gloeckle et al. 2024, section 3.1): loss on source code and tokens per forward.

The paper scores generated programs. Models of this size cannot write programs.
"""

import random
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from headway.data import Collator, Encoded, PackedRow, Text, load_examples, row_of, tokenize_prompt
from headway.decoding import DecodeStats, heads_drafter
from headway.errors import DataError
from headway.evaluation.tasks.held_out import held_out
from headway.experiments.reproduce.configs import ScaleConfig
from headway.experiments.reproduce.models import SPECIAL, word_tokenizer
from headway.experiments.reproduce.scratch import GeneratedTask, Metrics
from headway.model import HeadwayModel, load_tokenizer

PROMPTS = 8  # rows whose first half is continued, to count tokens per forward


def task_of(config: ScaleConfig) -> GeneratedTask:
    """Rows from random offsets of the text. Raises DataError for a text shorter than a row."""
    assert config.max_length is not None and config.test_examples is not None
    length = config.max_length
    tokenizer = (
        word_tokenizer(f"<{byte}>" for byte in range(256)) if config.tokenizer == "bytes" else load_tokenizer(config.tokenizer)
    )
    train_tokens, test_tokens = (_tokens(config, tokenizer, split) for split in ("train", "test"))

    def row(seed: int, index: int) -> PackedRow:
        return _row(train_tokens, length, random.Random(f"scale {seed} {index}"))

    random_ = random.Random("scale test")
    rows = [_row(test_tokens, length, random_) for _ in range(config.test_examples)]
    collate = Collator(0)

    def score(model: HeadwayModel) -> Metrics:
        trunk = HeadwayModel(model.trunk, None)
        return {"loss": held_out(trunk, (collate(rows[start : start + 16]) for start in range(0, len(rows), 16))).losses[0]}

    return GeneratedTask(
        tokenizer, 2 * length, row, score, lambda model: {"tokens per forward": tokens_per_forward(model, rows[:PROMPTS])}
    )


def tokens_per_forward(model: HeadwayModel, rows: list[PackedRow]) -> float:
    """Tokens per forward of greedy decoding from the first half of the rows, with a draft from every head; 1 without heads."""
    half = len(rows[0]["input_ids"]) // 2
    stats: list[DecodeStats] = []
    arguments: dict[str, Any] = {"drafter": heads_drafter("chain"), "adaptive": False} if model.count else {"speculative": False}
    for row in rows:
        ids = torch.tensor([row["input_ids"][:half]], device=model.device)
        stats.append(model.generate(ids, max_new_tokens=half, do_sample=False, eos_token_id=None, **arguments).stats)
    return DecodeStats.merge(stats).tokens_per_forward


def _tokens(config: ScaleConfig, tokenizer: PreTrainedTokenizerBase, split: str) -> np.ndarray:
    """All documents in one sequence, with <eos> after every document."""
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    parts = []
    for example in load_examples(config.text, split):
        if not isinstance(example, Text):
            raise DataError(f"{example.location}: texts are needed, not prompts or conversations.")
        if config.tokenizer == "bytes":
            parts.append(np.frombuffer(example.text.encode("utf-8"), np.uint8).astype(np.int32) + len(SPECIAL))
        else:
            parts.append(np.asarray(tokenize_prompt(example, tokenizer), np.int32))
        parts.append(np.asarray(eos, np.int32))
    tokens = np.concatenate(parts)
    assert config.max_length is not None
    if len(tokens) <= config.max_length:
        raise DataError(f"{config.text} ({split}) has {len(tokens)} tokens, too few for a row of {config.max_length}.")
    return tokens


def _row(tokens: np.ndarray, length: int, random_: random.Random) -> PackedRow:
    start = random_.randrange(len(tokens) - length)
    part = tokens[start : start + length].tolist()
    return row_of([Encoded(input_ids=part, labels=part)])
