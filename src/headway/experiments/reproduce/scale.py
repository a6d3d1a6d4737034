"""Section 3.1: does predicting several tokens help more, the larger the model?

The paper scores generated programs, which models of this size cannot write. Here it is the held-out next-token loss of source code,
and how many tokens the heads let the model write in a forward pass.
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
from headway.experiments.reproduce.runs import Measures
from headway.experiments.reproduce.scratch import Task
from headway.model import HeadwayModel, load_tokenizer

PROMPTS = 8  # rows whose first half is continued to count tokens a forward


def task_of(config: ScaleConfig) -> Task:
    """Rows from random places of the text. Raises DataError where the text is shorter than a row."""
    assert config.max_length is not None and config.test_examples is not None
    length = config.max_length
    tokenizer = (
        word_tokenizer(f"<{byte}>" for byte in range(256)) if config.tokenizer == "bytes" else load_tokenizer(config.tokenizer)
    )
    learnt, kept = (_tokens(config, tokenizer, split) for split in ("train", "test"))

    def row(seed: int, index: int) -> PackedRow:
        return _row(learnt, length, random.Random(f"scale {seed} {index}"))

    random_ = random.Random("scale test")
    rows = [_row(kept, length, random_) for _ in range(config.test_examples)]
    collate = Collator(0)

    def score(model: HeadwayModel) -> Measures:
        alone = HeadwayModel(model.trunk, None)
        return {"loss": held_out(alone, (collate(rows[start : start + 16]) for start in range(0, len(rows), 16))).losses[0]}

    return Task(tokenizer, 2 * length, row, score, lambda model: {"tokens a forward": tokens_per_forward(model, rows[:PROMPTS])})


def tokens_per_forward(model: HeadwayModel, rows: list[PackedRow]) -> float:
    """Of greedy decoding from the first half of each row, one draft a head a round; 1 without heads."""
    half = len(rows[0]["input_ids"]) // 2
    stats: list[DecodeStats] = []
    how: dict[str, Any] = {"drafter": heads_drafter("chain"), "adaptive": False} if model.count else {"speculative": False}
    for row in rows:
        ids = torch.tensor([row["input_ids"][:half]], device=model.device)
        stats.append(model.generate(ids, max_new_tokens=half, do_sample=False, eos_token_id=None, **how).stats)
    return DecodeStats.merge(stats).tokens_per_forward


def _tokens(config: ScaleConfig, tokenizer: PreTrainedTokenizerBase, split: str) -> np.ndarray:
    """The whole text end to end, documents closed by <eos>."""
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
    found = np.concatenate(parts)
    assert config.max_length is not None
    if len(found) <= config.max_length:
        raise DataError(f"{config.text} ({split}) has {len(found)} tokens, too few for a row of {config.max_length}.")
    return found


def _row(tokens: np.ndarray, length: int, random_: random.Random) -> PackedRow:
    start = random_.randrange(len(tokens) - length)
    part = tokens[start : start + length].tolist()
    return row_of([Encoded(input_ids=part, labels=part)])
