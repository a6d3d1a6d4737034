"""Denoising loses no token, corrupts the share asked for, and samples spans as T5 does."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headway.data.denoising import (
    UL2,
    Denoiser,
    DenoisingTokens,
    corrupt_spans,
    denoise,
    max_document_length,
    num_noise_spans,
    prefix_lm,
    random_spans,
    ul2,
)

BOS, EOS = 1, 2
MODES = {"R": [90], "S": [91, 95], "X": [92]}
SPECIAL = DenoisingTokens(MODES, [[100 + 2 * i, 1000] if i % 3 else [100 + 2 * i] for i in range(400)], EOS, BOS)
documents = st.lists(st.integers(3, 80), min_size=2, max_size=120)


def single_tokens():
    """Mode tokens and sentinels of one token each."""
    return DenoisingTokens({mode: [90 + "RSX".index(mode)] for mode in "RSX"}, [[100 + i] for i in range(400)], EOS, BOS)


def restore(inputs, target, sentinels):
    """The text with the spans of the target in place of the sentinels, and the number of spans; an independent inverse."""
    first = {sentinel[0]: sentinel for sentinel in sentinels}
    held, current, position = {}, None, 0
    while position < len(target):
        if target[position] in first:
            current = target[position]
            held[current] = []
            position += len(first[current])
        else:
            held[current].append(target[position])
            position += 1
    text, spans, position = [], 0, 0
    while position < len(inputs):
        if inputs[position] in first:
            text += held[inputs[position]]
            spans += 1
            position += len(first[inputs[position]])
        else:
            text.append(inputs[position])
            position += 1
    assert spans == len(held)
    return text, spans


@given(documents, st.sampled_from(UL2), st.integers(), st.booleans(), st.booleans())
def test_input_and_target_hold_every_token_and_as_many_sentinels(body, denoiser, seed, opened, closed):
    tokens = [BOS] * opened + body + [EOS] * closed
    found = denoise(tokens, denoiser, SPECIAL, random.Random(seed))
    learnt = [label != -100 for label in found["labels"]]
    assert learnt == sorted(learnt) and learnt == [not read for read in found["prefix"]]
    split = learnt.index(True)
    inputs, target = found["input_ids"][:split], found["input_ids"][split:]
    assert found["labels"][split:] == target
    if opened:
        assert inputs.pop(0) == BOS
    mode = MODES[denoiser.mode]
    assert inputs[: len(mode)] == mode
    inputs = inputs[len(mode) :]
    if denoiser.mean_span_length is None:
        assert inputs + target == body + [EOS] * closed
        assert len(target) - closed == max(round(len(body) / 4), 1)
    else:
        assert target.pop() == EOS
        text, spans = restore(inputs, target, SPECIAL.sentinels)
        assert text == body and spans == num_noise_spans(len(body), denoiser.corruption_rate, denoiser.mean_span_length)
    assert len(found["input_ids"]) <= SPECIAL.max_denoised_length(len(tokens))


@given(st.integers(2, 600), st.sampled_from([0.15, 0.5, 0.3]), st.sampled_from([2, 3, 8, 64]), st.integers())
def test_counts_are_those_of_t5s_random_spans_noise_mask(length, rate, mean, seed):
    spans = random_spans(length, rate, mean, random.Random(seed))
    noise = min(max(int(round(length * rate)), 1), length - 1)  # noqa: RUF046  as T5 writes it
    expected = min(max(int(round(noise / mean)), 1), noise, length - noise)  # noqa: RUF046
    assert sum(end - start for start, end in spans) == noise
    assert len(spans) == expected
    assert spans[-1][1] == length and spans[0][0] > 0
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans)) and all(start < end for start, end in spans)


def test_all_ways_to_place_the_spans_are_equally_likely():
    """T5 shuffles where one run ends and the next begins: every pair of compositions has the same probability."""

    def compositions(items, parts):
        return [c for c in itertools.product(range(1, items + 1), repeat=parts) if sum(c) == items]

    draw = random.Random(0)
    counts = Counter(tuple(random_spans(12, 0.5, 2, draw)) for _ in range(20_000))  # 6 tokens in 3 runs, of 12
    ways = len(compositions(6, 3)) ** 2
    assert len(counts) == ways == 100
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("denoiser", [one for one in UL2 if one.mean_span_length is not None])
def test_corruption_rate_and_mean_span_length_are_as_configured(denoiser):
    draw = random.Random(0)
    hidden, runs = 0, 0
    for _ in range(50):
        spans = random_spans(1024, denoiser.corruption_rate, denoiser.mean_span_length, draw)
        hidden += sum(end - start for start, end in spans)
        runs += len(spans)
    assert hidden / (50 * 1024) == pytest.approx(denoiser.corruption_rate, rel=0.01)
    tolerance = 0.25 if denoiser.mean_span_length == 64 else 0.03  # 154 tokens in 2 spans: 77
    assert hidden / runs == pytest.approx(denoiser.mean_span_length, rel=tolerance)


def test_a_worked_example():
    inputs, target = corrupt_spans(list("abcdefgh"), [(1, 3), (6, 8)], [["<0>"], ["<1>"]])
    assert inputs == ["a", "<0>", "d", "e", "f", "<1>"]
    assert target == ["<0>", "b", "c", "<1>", "g", "h"]
    with pytest.raises(ValueError, match="2 spans"):
        corrupt_spans(list("abcdefgh"), [(1, 3), (6, 8)], [["<0>"]])


def test_the_mixture_samples_denoisers_with_their_probabilities():
    draw = random.Random(0)
    modes = Counter(ul2(range(3, 67), single_tokens(), draw)["input_ids"][0] - 90 for _ in range(7000))
    assert stats.chisquare([modes[0], modes[1], modes[2]], [2000, 1000, 4000]).pvalue > 1e-3
    modes = Counter(ul2(range(3, 67), single_tokens(), draw, s_denoiser_share=0.5)["input_ids"][0] - 90 for _ in range(6000))
    assert stats.chisquare([modes[0], modes[1], modes[2]], [1000, 3000, 2000]).pvalue > 1e-3


@given(documents, st.integers())
def test_prefix_lm_keeps_the_text_and_labels_the_tokens_after_the_split(tokens, seed):
    found = prefix_lm(tokens, tokens, random.Random(seed))
    split = found["prefix"].index(False)
    assert found["input_ids"] == tokens and 0 < split < len(tokens)
    assert found["labels"] == [-100] * split + tokens[split:]
    assert found["prefix"] == [True] * split + [False] * (len(tokens) - split)


def test_prefix_lm_splits_uniformly_and_takes_a_prompt_for_the_prefix():
    draw = random.Random(0)
    positions = Counter(
        prefix_lm([1, *range(10, 20)], [1, *range(10, 20)], draw, bos=1)["prefix"].index(False) for _ in range(5000)
    )
    assert sorted(positions) == list(range(2, 11)) and stats.chisquare(list(positions.values())).pvalue > 1e-3
    found = prefix_lm([5, 6, 7, 8], [-100, -100, 7, 8], draw)
    assert found["labels"] == [-100, -100, 7, 8] and found["prefix"] == [True, True, False, False]


def test_a_single_token_stays_unchanged():
    for denoiser in UL2:
        found = denoise([BOS, 7, EOS], denoiser, SPECIAL, random.Random(0))
        assert found["input_ids"] == found["labels"] == [BOS, 7, EOS]


@given(st.integers(20, 300), st.integers())
def test_the_longest_document_fits_with_every_denoiser(length, seed):
    size = max_document_length(length, single_tokens().max_denoised_length)
    assert size + 1 >= 0.7 * length - 4 and single_tokens().max_denoised_length(size + 1) > length
    for denoiser in [*UL2, Denoiser("R", 0.5, 3)]:
        assert len(denoise([BOS, *[5] * (size - 1)], denoiser, single_tokens(), random.Random(seed))["input_ids"]) <= length
