"""Rows whose documents are denoised as they are read: anew in every epoch, and the same in any order and any worker."""

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
from headway.data.denoising import Denoised, longest, prefix_lm, ul2
from headway.data.sentinels import marks_of
from headway.errors import ConfigError, UnsupportedModelError
from headway.model import HeadwayModel, positions_of
from headway.training.configs import TrainingConfig
from headway.trunk import eval_mode

Transform = Callable[[Encoded, random.Random], Denoised]
PROBE = 6  # tokens


class DenoisedRows(Dataset):
    """Rows of text, each document through `transform` with random numbers of its own: of seed, epoch, row and place in it."""

    def __init__(self, rows: Dataset, transform: Transform, seed: int, both_ways: bool = False, added: int = 0) -> None:
        self.rows = rows
        self.transform = transform
        self.seed = seed
        self.added = added  # tokens that the tokenizer did not have
        self.both_ways = both_ways
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, list]:
        row = self.rows[index]
        made: dict[str, list] = {"input_ids": [], "labels": [], "segments": [], "prefix": []}
        starts = [place for place, number in enumerate(row["segments"]) if place == 0 or number != row["segments"][place - 1]]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(row["segments"])], strict=True)):
            document = Encoded(input_ids=row["input_ids"][start:end], labels=row["labels"][start:end])
            denoised = self.transform(document, random.Random(f"{self.seed}-{self.epoch}-{index}-{number}"))
            made["input_ids"] += denoised["input_ids"]
            made["labels"] += denoised["labels"]
            made["segments"] += [number] * len(denoised["input_ids"])
            made["prefix"] += denoised["prefix"]
        if not self.both_ways:
            del made["prefix"]
        return made


class SetEpoch(TrainerCallback):
    """Tells rows that change from epoch to epoch which one begins; a resumed one is told where it was."""

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if isinstance(self.rows, DenoisedRows):
            self.rows.epoch = int(state.epoch or 0)


@dataclass(frozen=True)
class Denoising:
    """What the settings make of a document, and how much room that takes."""

    longest: int  # tokens of a document that is sure to fit
    transform: Transform | None = None
    grown: Callable[[int], float] | None = None  # tokens of a document -> how many it may become
    added: int = 0  # special tokens that the tokenizer did not have


def denoising_of(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> Denoising:
    """Read the settings; special tokens that are missing are added to the tokenizer.

    Raises: DataError where rows are too short, or the tokenizer has no eos token.
    """
    if config.denoising == "prefix-lm":
        return Denoising(config.max_length, partial(_prefix_lm, bos=tokenizer.bos_token_id))
    if config.denoising == "none":
        return Denoising(config.max_length)
    before = len(tokenizer)
    marks = marks_of(tokenizer, config.max_length, config.denoising_tokens)
    transform = partial(_ul2, marks=marks, sequential=config.ul2_s_denoiser_share)
    return Denoising(longest(config.max_length, marks.grown), transform, marks.grown, len(tokenizer) - before)


def _ul2(document: Encoded, draw: random.Random, **options: Any) -> Denoised:
    return ul2(document["input_ids"], draw=draw, **options)


def _prefix_lm(document: Encoded, draw: random.Random, bos: int | None) -> Denoised:
    return prefix_lm(document["input_ids"], document["labels"], draw, bos)


def resize_embeddings_for(rows: Dataset, model: HeadwayModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make room for tokens that denoising added, and check that the trunk sees a prefix both ways where that is asked.

    Raises: ConfigError where their embeddings could not learn, UnsupportedModelError where masks do nothing.
    """
    if not isinstance(rows, DenoisedRows):
        return
    embeddings = next(model.trunk.get_input_embeddings().parameters())
    if rows.added and not embeddings.requires_grad:
        raise ConfigError(
            f"denoising_tokens: special adds {rows.added} tokens to this model's vocabulary, whose embeddings would not learn with "
            "lora or a frozen trunk. Use denoising_tokens: text."
        )
    if len(tokenizer) > len(embeddings):
        model.trunk.resize_token_embeddings(len(tokenizer))
    if rows.both_ways:
        check_sees_both_ways(model)


@torch.no_grad()
def check_sees_both_ways(model: HeadwayModel) -> None:
    """Raise UnsupportedModelError unless tokens of a prefix see later ones of it, and none behind it."""
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
        raise UnsupportedModelError(f"{type(trunk).__name__} takes no masks of ours: {str(error).splitlines()[0]}") from error
    if torch.allclose(plain, within, rtol=1e-3) or not torch.allclose(plain, behind, rtol=1e-3, atol=1e-4):
        raise UnsupportedModelError(
            f"{type(trunk).__name__} makes masks of its own, so a prefix cannot be seen both ways: leave bidirectional_prefix off."
        )
