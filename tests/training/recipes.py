"""A tiny model with a tokenizer, and a little data: what the training tests share, in this process and in others."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import tiny_trunk

TEXT = "one two three four five six seven eight nine ten plus minus is and the cat sat on a mat in rain"
WORDS = TEXT.split()


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_model(folder: Path, **overrides: object) -> Path:
    tiny_trunk("llama", **overrides).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_data(file: Path, count: int = 60) -> Path:
    """Prompts and completions of different lengths."""
    draw = random.Random(0)
    rows = [
        {
            "prompt": " ".join(draw.choices(WORDS, k=draw.randint(1, 6))),
            "completion": " " + " ".join(draw.choices(WORDS, k=draw.randint(2, 12))),
        }
        for _ in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in history if "loss" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a saved model, trunk and heads."""
    return {
        f"{file.name}:{name}": tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }
