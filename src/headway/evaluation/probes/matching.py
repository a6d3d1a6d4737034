"""Comparison of answers after the normalisation of SQuAD's evaluation (Rajpurkar et al. 2016, arXiv 1606.05250)."""

import re
import string
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """The text in lower case, without punctuation, articles and doubled spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def same(answer: str, reference: str) -> bool:
    """True if answer and reference are equal after normalisation."""
    return normalise(answer) == normalise(reference)


def contains_any(answer: str, references: Sequence[str]) -> bool:
    """Best-subspan exact match (Liu et al. 2023, arXiv 2307.03172, section 2.1): the answer contains a reference.

    A reference that is empty after normalisation matches no answer.
    """
    text = normalise(answer)
    return any(cleaned in text for reference in references if (cleaned := normalise(reference)))


def contains_words(answer: str, reference: str) -> bool:
    """True if the answer contains the reference as whole words: "part" does not contain "art"."""
    cleaned = normalise(reference)
    return bool(cleaned) and f" {cleaned} " in f" {normalise(answer)} "


def first_line(text: str) -> str:
    return text.split("\n")[0].strip()
