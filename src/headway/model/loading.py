"""Models and tokenizers by folder, hub id, or `embedded`. Code inside a checkpoint never runs."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from headway import model_path
from headway.errors import CheckpointError
from headway.model.headway_model import HeadwayModel
from headway.model.trunk_loading import adapter_base, custom_code_reason, load_trunk
from headway.trunk import num_embeddings

__all__ = [
    "best_device",
    "check_tokenizer_fits",
    "load_model",
    "load_model_and_tokenizer",
    "load_tokenizer",
    "load_trunk",
    "named_dtype",
]


def load_model(
    source: str | Path, count: int | None = None, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> HeadwayModel:
    """A model in evaluation mode on a device.

    Args:
        source: folder, hub id, or `embedded`.
        count: number of heads to keep; default: all.
        dtype: of the weights, a dtype or a name (`bfloat16`); None and `saved`: as saved.
        device: default: `best_device()`.
    Raises: CheckpointError if a file is missing, damaged or does not fit.
    """
    if Path(model_path(source)).is_dir():
        logging.disable_progress_bar()  # loading takes a moment; only a download is worth a bar
    model = HeadwayModel.from_pretrained(source, count=count, dtype=named_dtype(dtype) if isinstance(dtype, str) else dtype)
    return model.to(best_device() if device is None else device).eval()


def named_dtype(name: str) -> torch.dtype | None:
    """The dtype of that name; None, the dtype as saved, for `saved`."""
    return None if name == "saved" else getattr(torch, name)


def load_tokenizer(source: str | Path, padding_side: Literal["left", "right"] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; for a folder with an adapter alone, the tokenizer of the base model.

    Args:
        source: folder, hub id, or `embedded`.
        padding_side: default: as the tokenizer's files say.
    Raises: CheckpointError if there is no tokenizer, or if the tokenizer needs code from the checkpoint.
    """
    folder = Path(model_path(source))  # a hub id goes to transformers as it is: only the tokenizer's files are fetched
    options = {} if padding_side is None else {"padding_side": padding_side}
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        if folder.is_dir() and (base := adapter_base(folder)) is not None:
            return load_tokenizer(base, padding_side)
        reason = custom_code_reason(folder, error, "tokenizer_config.json", "config.json")
        raise CheckpointError(f"The tokenizer of {str(source)!r} cannot be loaded: {reason}") from error


def load_model_and_tokenizer(source: str | Path, **options: Any) -> tuple[HeadwayModel, Any]:
    """`load_model(source, **options)` and `load_tokenizer(source)`, checked to fit.

    A padding token without an embedding becomes the end-of-text token.

    Raises: CheckpointError also for a tokenizer with tokens that the model does not embed.
    """
    model, tokenizer = load_model(source, **options), load_tokenizer(source)
    check_tokenizer_fits(model, tokenizer)
    if (tokenizer.pad_token_id or 0) >= num_embeddings(model.trunk):
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def check_tokenizer_fits(model: HeadwayModel | PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the model embeds all tokens of the tokenizer, the padding token aside.

    Raises: CheckpointError naming the first token without an embedding.
    """
    size = num_embeddings(model if isinstance(model, PreTrainedModel) else model.trunk)
    vocabulary = tokenizer.get_vocab().items()
    beyond = sorted((index, token) for token, index in vocabulary if index >= size and token != tokenizer.pad_token)
    if beyond:
        raise CheckpointError(
            f"The tokenizer has {len(tokenizer)} tokens, and the model embeds {size}: {beyond[0][1]!r} (token {beyond[0][0]}) has "
            "no embedding. Use the model's own tokenizer, or resize the model: resize_token_embeddings(len(tokenizer))."
        )


def best_device() -> torch.device:
    """The accelerator, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
