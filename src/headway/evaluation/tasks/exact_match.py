"""Exact match of final answers, extracted and compared as lm-eval's `gsm8k` task does (version 3)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track

from headway.data import Example
from headway.decoding import DecodeStats, heads_drafter
from headway.model import HeadwayModel

STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = [re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$")]
INVALID = "[invalid]"


@dataclass(frozen=True)
class Answer:
    prompt: str
    text: str
    strict: bool
    flexible: bool


@dataclass(frozen=True)
class ExactMatch:
    """Shares of answers that match, and what decoding them took."""

    answers: list[Answer]
    stats: list[DecodeStats]

    @property
    def strict(self) -> float:
        return sum(answer.strict for answer in self.answers) / len(self.answers)

    @property
    def flexible(self) -> float:
        return sum(answer.flexible for answer in self.answers) / len(self.answers)

    @property
    def tokens_per_forward(self) -> float:
        return DecodeStats.together(self.stats).tokens_per_forward

    @property
    def acceptance(self) -> tuple[float, ...]:
        return DecodeStats.together(self.stats).acceptance


def extract_strict(text: str) -> str:
    """The first number after ####."""
    found = STRICT.findall(text)
    return found[0].strip() if found else INVALID


def extract_flexible(text: str) -> str:
    """The last number anywhere."""
    found = FLEXIBLE.findall(text)
    return next((group for group in found[-1] if group), INVALID).strip() if found else INVALID


def same_answer(found: str, reference: str) -> bool:
    """Equal after lm-eval's clean-up: commas, dollar signs, all before ####, and a final full stop do not count."""
    for pattern in IGNORED:
        found, reference = pattern.sub("", found), pattern.sub("", reference)
    return found.lower() == reference.lower()


def exact_match(
    model: HeadwayModel,
    tokenizer: Any,
    examples: Sequence[Example],
    max_new_tokens: int = 256,
    batch_size: int = 16,
    plain: bool = False,
    shots: Sequence[Example] = (),
    quiet: bool = False,
) -> ExactMatch:
    """Decode greedily and score; `examples` and `shots` have prompt and completion.

    Prompts of like length are decoded together; results come in the order of the examples. Each head drafts one token a
    round, whether it pays or not: so the acceptance is a figure of the heads, not of the machine.
    """
    shown = "".join(f"{shot['prompt']}{shot['completion']}\n\n" for shot in shots)
    encoded = [tokenizer(shown + example["prompt"], verbose=False)["input_ids"] for example in examples]
    order = sorted(range(len(examples)), key=lambda i: -len(encoded[i]))
    texts: dict[int, str] = {}
    stats = []
    drafter = heads_drafter("chain") if model.heads is not None else None
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for batch in batches if quiet else track(batches, "answering", transient=True):
        ids, mask = left_padded([encoded[i] for i in batch], model.device)
        settings = {"max_new_tokens": max_new_tokens, "do_sample": False, "plain": plain, "adaptive": False}
        out = model.generate(ids, attention_mask=mask, drafter=drafter, **settings)
        stats.append(out.stats)
        for i, text in zip(batch, tokenizer.batch_decode(out.sequences[:, ids.shape[1] :], skip_special_tokens=True), strict=True):
            texts[i] = _cut(text)
    answers = []
    for i, example in enumerate(examples):
        text, reference = texts[i], example["completion"].strip()
        strict, flexible = (same_answer(extract(text), reference) for extract in (extract_strict, extract_flexible))
        answers.append(Answer(example["prompt"], text, strict, flexible))
    return ExactMatch(answers, stats)


def left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, (batch, longest)."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _cut(text: str) -> str:
    for stop in STOPS:
        text = text.split(stop)[0]
    return text
