"""Induction (Gloeckle et al. 2024, section 4.1): accuracy on the second token of names mentioned earlier in a story.

Names have two tokens. Training stories are renamed too, with other pairs of the same syllables. The paper renames the test stories
alone, and trains on 26 billion tokens.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headway.data import Collator, Encoded, PackedRow, Text, load_examples, row_of
from headway.data.generated.induction import (
    names_of_two_tokens,
    names_somebody_twice,
    renamed,
    renamed_stories,
    syllables,
    words_of,
)
from headway.data.generated.stories import generate_stories
from headway.errors import DataError
from headway.experiments.reproduce.configs import InductionConfig
from headway.experiments.reproduce.models import word_tokenizer
from headway.experiments.reproduce.scratch import GeneratedTask, Metrics
from headway.model import HeadwayModel

TEST_SEED = 1_000_003  # of stories that no run trains on
VOCABULARY = 8000  # words of files; rarer words are <unk>
VOCABULARY_STORIES = 4000  # generated stories whose words are the vocabulary


def task_of(config: InductionConfig) -> GeneratedTask:
    """Renamed stories. Raises DataError if files hold too few stories with a repeated name."""
    assert config.max_length is not None and config.syllables is not None and config.test_examples is not None
    training, test = names_of_two_tokens(config.syllables)
    corpus = _corpus(config.stories)
    held_out = corpus[: config.test_examples] if corpus else generate_stories(config.test_examples, TEST_SEED)
    learnt = corpus[config.test_examples :]
    if corpus and not learnt:
        raise DataError(f"{config.stories} has {len(corpus)} stories, but the test alone takes as many.")
    firsts, seconds = syllables(config.syllables)
    tokenizer = word_tokenizer([*_vocabulary(corpus or generate_stories(VOCABULARY_STORIES, TEST_SEED)), *firsts, *seconds])
    ids, unknown, length = tokenizer.get_vocab(), tokenizer.unk_token_id, config.max_length

    def encoded(words: Sequence[str]) -> Encoded:
        tokens = [ids.get(word, unknown) for word in words[: length - 1]] + [tokenizer.eos_token_id]
        return Encoded(input_ids=tokens, labels=tokens)

    def row(seed: int, index: int) -> PackedRow:
        random_ = random.Random(f"induction {seed} {index}")
        story = random_.choice(learnt) if learnt else generate_stories(1, random_.getrandbits(48))[0]
        return row_of([encoded(renamed(words_of(story), training, random_)[0])])

    stories = renamed_stories(held_out, test, TEST_SEED, length - 1)
    test_set = TestSet([row_of([encoded(words)]) for words, _ in stories], [positions for _, positions in stories])
    return GeneratedTask(tokenizer, length, row, lambda model: score(model, test_set))


@dataclass(frozen=True)
class TestSet:
    """Stories, and by story the positions of second tokens of names that occurred before."""

    __test__ = False  # for pytest
    rows: list[PackedRow]
    positions: list[list[int]]


@torch.no_grad()
def score(model: HeadwayModel, test: TestSet, batch_size: int = 32) -> Metrics:
    """Accuracy and mean probability of the trunk's next-token prediction at the positions of the test set."""
    right, probability, total = 0, 0.0, 0
    collate = Collator(0)
    for start in range(0, len(test.rows), batch_size):
        batch = collate(test.rows[start : start + batch_size])
        ids = batch["input_ids"].to(model.device)
        states = model(ids, batch["segments"].to(model.device), count=0).hidden_states[0]
        for row, positions in enumerate(test.positions[start : start + batch_size]):
            labels = ids[row, positions]  # (positions,)
            logits = model.unembedding.logits(states[row, [position - 1 for position in positions]])  # (positions, vocabulary)
            right += int((logits.argmax(-1) == labels).sum())
            probability += float(logits.softmax(-1).gather(-1, labels[:, None]).sum())
            total += len(positions)
    return {"accuracy": right / total, "probability": probability / total}


def _corpus(source: str) -> list[str]:
    """Stories of files with a repeated known name; empty for generated stories."""
    if source == "generated":
        return []
    texts = [example.text for example in load_examples(source) if isinstance(example, Text)]
    return [text for text in texts if names_somebody_twice(words_of(text))]


def _vocabulary(texts: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}
    for text in texts:
        for word in words_of(text):
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY]
