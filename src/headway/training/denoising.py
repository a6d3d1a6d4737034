"""Rows whose documents are denoised when read: new noise in every epoch, and the same noise in any order and any worker."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headway.data import Encoded
from headway.data.denoising import Denoised, max_document_length, prefix_lm, ul2
from headway.data.sentinels import build_denoising_tokens
from headway.errors import ConfigError, UnsupportedModelError
from headway.model import HeadwayModel, positions_of
from headway.training.configs import TrainingConfig
from headway.trunk import eval_mode

Transform = Callable[[Encoded, random.Random], Denoised]
PROBE = 6  # tokens


class DenoisedRows(Dataset):
    """Packed rows with transformed documents. Noise depends on seed, epoch, index of the row and index of the document.

    Args:
        rows: packed rows.
        transform: denoising of a document.
        seed: seed of the noise.
        both_ways: keep the column `prefix`, for attention in both directions.
        added: number of special tokens that the tokenizer lacked.
    """

    def __init__(self, rows: Dataset, transform: Transform, seed: int, both_ways: bool = False, added: int = 0) -> None:
        self.rows = rows
        self.transform = transform
        self.seed = seed
        self.added = added
        self.both_ways = both_ways
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, list]:
        row = self.rows[index]
        columns: dict[str, list] = {"input_ids": [], "labels": [], "segments": [], "prefix": []}
        starts = [index for index, number in enumerate(row["segments"]) if index == 0 or number != row["segments"][index - 1]]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(row["segments"])], strict=True)):
            document = Encoded(input_ids=row["input_ids"][start:end], labels=row["labels"][start:end])
            denoised = self.transform(document, random.Random(f"{self.seed}-{self.epoch}-{index}-{number}"))
            columns["input_ids"] += denoised["input_ids"]
            columns["labels"] += denoised["labels"]
            columns["segments"] += [number] * len(denoised["input_ids"])
            columns["prefix"] += denoised["prefix"]
        if not self.both_ways:
            del columns["prefix"]
        return columns


class SetEpoch(TrainerCallback):
    """Set the epoch of denoised rows when an epoch begins or a run resumes."""

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if isinstance(self.rows, DenoisedRows):
            self.rows.epoch = int(state.epoch or 0)


@dataclass(frozen=True)
class Denoising:
    """Denoising of the settings.

    Args:
        max_document_length: tokens of a document that fits into a row after denoising.
        transform: denoising of a document; None: no denoising.
        max_denoised_length: largest number of tokens that a document of n tokens can become.
        added: number of special tokens that the tokenizer lacked.
    """

    max_document_length: int
    transform: Transform | None = None
    max_denoised_length: Callable[[int], float] | None = None
    added: int = 0


def denoising_of(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> Denoising:
    """Denoising of the settings. Adds missing special tokens to the tokenizer.

    Raises:
        DataError: rows are too short, or the tokenizer has no end token.
    """
    if config.denoising == "prefix-lm":
        return Denoising(config.max_length, partial(_prefix_lm, bos=tokenizer.bos_token_id))
    if config.denoising == "none":
        return Denoising(config.max_length)
    before = len(tokenizer)
    special = build_denoising_tokens(tokenizer, config.max_length, config.denoising_tokens)
    transform = partial(_ul2, special=special, s_denoiser_share=config.ul2_s_denoiser_share)
    longest = max_document_length(config.max_length, special.max_denoised_length)
    return Denoising(longest, transform, special.max_denoised_length, len(tokenizer) - before)


def _ul2(document: Encoded, rng: random.Random, **options: Any) -> Denoised:
    return ul2(document["input_ids"], rng=rng, **options)


def _prefix_lm(document: Encoded, rng: random.Random, bos: int | None) -> Denoised:
    return prefix_lm(document["input_ids"], document["labels"], rng, bos)


def resize_embeddings_for(rows: Dataset, model: HeadwayModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Resize the embeddings for special tokens of denoising, and check attention in both directions for rows with prefixes.

    Raises:
        ConfigError: embeddings of the new tokens could not learn.
        UnsupportedModelError: the trunk does not attend in both directions.
    """
    if not isinstance(rows, DenoisedRows):
        return
    embeddings = next(model.trunk.get_input_embeddings().parameters())
    if rows.added and not embeddings.requires_grad:
        raise ConfigError(
            f"denoising_tokens: special adds {rows.added} tokens to this model's vocabulary, and their embeddings would not learn "
            "with lora or a frozen trunk. Use denoising_tokens: text."
        )
    if len(tokenizer) > len(embeddings):
        model.trunk.resize_token_embeddings(len(tokenizer))
    if rows.both_ways:
        check_sees_both_ways(model)


@torch.no_grad()
def check_sees_both_ways(model: HeadwayModel) -> None:
    """Raise UnsupportedModelError unless tokens of a prefix attend to later tokens of the prefix and to none after it."""
    trunk, view = model.trunk, model.view
    ids = torch.arange(1, PROBE + 1, device=trunk.device)[None] % view.config.vocab_size
    prefix = (torch.arange(PROBE, device=trunk.device) < PROBE // 2)[None]
    positions = positions_of(torch.zeros_like(ids))

    def first_state(changed: int | None = None) -> Tensor:
        read = ids.clone()
        if changed is not None:
            read[0, changed] = 0
        return view.run(read, positions, view.masks(positions, positions, prefix=prefix)).last[0, 0].float()

    try:
        with eval_mode(model):
            plain, within, behind = first_state(), first_state(PROBE // 2 - 1), first_state(PROBE // 2)
    except UnsupportedModelError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedModelError(f"{type(trunk).__name__} takes no 4-D attention masks: {str(error).splitlines()[0]}") from error
    if torch.allclose(plain, within, rtol=1e-3) or not torch.allclose(plain, behind, rtol=1e-3, atol=1e-4):
        raise UnsupportedModelError(
            f"{type(trunk).__name__} makes attention masks of its own, so a prefix cannot attend in both directions: leave "
            "bidirectional_prefix off."
        )
