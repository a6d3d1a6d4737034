"""Processors are tried where they are built, and no more of them are kept than a long life can bear."""

import pytest
import torch
from transformers import GenerationConfig

from headway.decoding.sampler import PROCESSOR_CACHE_SIZE, Sampler
from headway.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sequence_bias", {(61,): 1.0}),
        ("sequence_bias", {(5, 61): 1.0}),
        ("bad_words_ids", [[61]]),
        ("forced_eos_token_id", 61),
        ("forced_bos_token_id", 61),
    ],
)
def test_a_token_beyond_the_vocabulary_is_refused_by_the_name_of_its_setting(name, value):
    config = GenerationConfig(**{name: value})
    Sampler(config, CPU, vocabulary=62)
    with pytest.raises(ConfigError, match=f"{name}=.* cannot be used with 61 tokens"):
        Sampler(config, CPU, vocabulary=61)


def test_a_penalty_that_starts_late_is_tried_as_well():
    config = GenerationConfig(exponential_decay_length_penalty=(10**12, 1.1), eos_token_id=61)
    with pytest.raises(ConfigError, match="exponential_decay_length_penalty"):
        Sampler(config, CPU, vocabulary=61)


def built(config):
    """How many lists of processors rows of many lengths make, and how many of those are kept."""
    sampler = Sampler(config, CPU)
    for prompt in range(1, 200):
        sampler.process_logits(torch.zeros(61), torch.zeros(prompt, dtype=torch.long), prompt, prompt + 5)
    return sampler._processors.cache_info()


def test_what_does_not_count_tokens_is_built_once_for_all_prompts():
    found = built(GenerationConfig(repetition_penalty=1.2, sequence_bias={(5,): 1.0}))
    assert (found.misses, found.currsize) == (1, 1)


@pytest.mark.parametrize(
    "settings",
    [{"min_new_tokens": 3}, {"forced_eos_token_id": 2}, {"begin_suppress_tokens": [7]}, {"min_length": 9}],
    ids=str,
)
def test_what_counts_tokens_is_kept_for_some_lengths(settings):
    found = built(GenerationConfig(eos_token_id=2, **settings))
    assert (found.misses, found.currsize) == (200, PROCESSOR_CACHE_SIZE)
