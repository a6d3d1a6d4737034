"""Reduced draft vocabulary: heads predict only the most frequent tokens (FR-Spec, arXiv 2502.14856, section 3.2; VocabTrim, arXiv
2506.22694, with tokens counted in samples of the trunk).

The unembedding dominates the cost of a small head. The trunk verifies with the full vocabulary: the output does not change.
Only drafts of rare tokens are lost.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headway.decoding.stopping import eos_tokens
from headway.errors import ConfigError
from headway.model import HeadwayModel
from headway.ops import IGNORE
from headway.training.datasets import PackedDataset
from headway.training.denoising import DenoisedRows


def restrict_heads(
    model: HeadwayModel, rows: PackedDataset | DenoisedRows, size: int, tokenizer: PreTrainedTokenizerBase, quiet: bool = False
) -> dict[str, Any]:
    """Reduce the vocabulary of the heads to the `size` most frequent labels and all special tokens.

    Args:
        model: trunk and heads.
        rows: training data with the labels to count.
        size: number of most frequent labels.
        tokenizer: source of the special tokens.
        quiet: print nothing.
    Returns: entries for the record of the run: the number of tokens, and the share of labels among these tokens.
    Raises:
        ConfigError: `size` is not below the trunk's vocabulary, or the vocabulary of the heads is reduced already.
    """
    assert model.heads is not None
    every = model.unembedding.size
    if size >= every:
        raise ConfigError(f"draft_vocabulary must be below the {every} tokens of the trunk, got {size}.")
    if model.heads.draft_tokens is not None:
        raise ConfigError(
            f"These heads have a vocabulary of {len(model.heads.draft_tokens)} tokens already: leave draft_vocabulary out, or "
            "train randomly initialised heads."
        )
    counts = counted(rows, every)
    tokens = most_frequent(counts, size, {*tokenizer.all_special_ids, *eos_tokens(model.trunk.generation_config)})
    model.heads.set_draft_vocab(tokens.to(model.device))
    share = float(counts[tokens.numpy()].sum() / counts.sum())
    if not quiet:
        text = f"The heads predict {len(tokens):,} of {every:,} tokens, which are {share:.2%} of the labels."
        Console(stderr=True, highlight=False).print(text, style="dim")
    return {"draft_vocabulary": len(tokens), "draft_vocabulary_share": share}


def counted(rows: PackedDataset | DenoisedRows, vocabulary: int) -> np.ndarray:
    """Number of labels of each token, (vocabulary,)."""
    labels = (rows.rows if isinstance(rows, DenoisedRows) else rows).arrays["labels"]  # type: ignore[attr-defined]
    return np.bincount(labels[labels != IGNORE], minlength=vocabulary)


def most_frequent(counts: np.ndarray, size: int, always: Collection[int]) -> Tensor:
    """The `size` tokens with the highest counts and the tokens of `always`, ascending, (tokens,). Ties go to smaller ids."""
    first = np.argsort(-counts, kind="stable")[:size]
    return torch.tensor(sorted({*first.tolist(), *(token for token in always if token < len(counts))}))
