"""A reduced draft vocabulary: heads know the tokens that they will mostly have to draft (FR-Spec, arXiv 2502.14856, section 3.2;
VocabTrim, arXiv 2506.22694, which counts in the trunk's own samples).

Unembedding is most of what a small head costs. The trunk verifies with all of its tokens, so the output stays what it is; only
drafts of rare tokens are lost.
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
    """Let the heads know the `size` tokens that are learnt most often in these rows, and all special ones.

    Returns: for the record, how many tokens that are, and the share of what is learnt that they make up.
    Raises: ConfigError where the trunk has no more tokens than that, or the heads know only some already.
    """
    assert model.heads is not None
    every = model.unembedding.size
    if size >= every:
        raise ConfigError(f"draft_vocabulary must be below the {every} tokens of the trunk, got {size}.")
    if model.heads.draft_tokens is not None:
        raise ConfigError(
            f"These heads know {len(model.heads.draft_tokens)} tokens already: leave draft_vocabulary out, or train fresh ones."
        )
    counts = counted(rows, every)
    tokens = most_frequent(counts, size, {*tokenizer.all_special_ids, *eos_tokens(model.trunk.generation_config)})
    model.heads.set_draft_vocab(tokens.to(model.device))
    share = float(counts[tokens.numpy()].sum() / counts.sum())
    if not quiet:
        text = f"The heads know {len(tokens):,} of {every:,} tokens, which are {share:.2%} of what is learnt."
        Console(stderr=True, highlight=False).print(text, style="dim")
    return {"draft_vocabulary": len(tokens), "draft_vocabulary_share": share}


def counted(rows: PackedDataset | DenoisedRows, vocabulary: int) -> np.ndarray:
    """How often each token is a label, (vocabulary,)."""
    labels = (rows.rows if isinstance(rows, DenoisedRows) else rows).arrays["labels"]  # type: ignore[attr-defined]
    return np.bincount(labels[labels != IGNORE], minlength=vocabulary)


def most_frequent(counts: np.ndarray, size: int, always: Collection[int]) -> Tensor:
    """The `size` tokens with the highest counts, of equal ones the first, and those of `always`; ascending, (tokens,)."""
    first = np.argsort(-counts, kind="stable")[:size]
    return torch.tensor(sorted({*first.tolist(), *(token for token in always if token < len(counts))}))
