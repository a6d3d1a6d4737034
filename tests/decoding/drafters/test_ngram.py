"""N-gram drafts are the tokens that followed the same n-gram before, and never change the text."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from headway import HeadwayModel
from headway.decoding import RaggedKVCache, ngram_drafter
from headway.decoding.batch import DecodingBatch, SequenceState
from headway.decoding.drafters.base import build_drafter
from headway.decoding.drafters.ngram import NgramIndex
from headway.decoding.sampler import Sampler
from headway.decoding.stopping import StoppingCriteria
from headway.errors import ConfigError
from tests.references import check_batch_invariance, check_greedy, check_sampling, prompts, reference
from tests.tiny import tiny_trunk


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([5, 6, 7, 8, 5, 6, 9, 4, 5, 6], [9, 4, 5]),  # the latest occurrence wins
        ([1, 5, 6, 7, 2, 5, 6, 8, 1, 5, 6], [7, 2, 5]),  # but a longer match before it
        ([4, 9, 3, 9], [3, 9, 3]),  # a shorter match if there is no longer match; the copy continues with itself
        ([7, 7], [7, 7, 7]),
        ([4, 5, 6], []),
        ([4], []),
    ],
    ids=str,
)
def test_drafts_follow_the_last_occurrence_of_the_longest_match(text, expected):
    assert NgramIndex(3, 1).continuation(text, 3) == expected
    grown = NgramIndex(3, 1)
    for end in range(1, len(text)):
        grown.continuation(text[:end], 3)
    assert grown.continuation(text, 3) == expected  # indexed token by token or at once


def test_matches_shorter_than_shortest_are_ignored():
    assert NgramIndex(3, 2).continuation([4, 9, 3, 9], 3) == []
    assert NgramIndex(3, 2).continuation([4, 9, 3, 4, 9], 3) == [3, 4, 9]


def test_a_text_of_period_three_is_predicted_perfectly():
    text = [3, 8, 5] * 9
    index = NgramIndex(3, 1)
    for end in range(4, 15):
        assert index.continuation(text[:end], 8) == text[end : end + 8]


def test_each_committed_token_is_indexed_once():
    class Counted(list):
        read = 0

        def __getitem__(self, at):
            Counted.read += 1
            return super().__getitem__(at)

    text, index = Counted(range(400)), NgramIndex(3, 1)
    index.continuation(text, 0)
    before = Counted.read
    text.append(7)
    index.continuation(text, 0)
    assert Counted.read - before <= 2 * 3  # one entry and one look-up for each n


def drafted(rows, drafter, count):
    sampler = Sampler(GenerationConfig(), torch.device("cpu"))
    states = [SequenceState(list(tokens), 1, limit, sampler, StoppingCriteria(())) for tokens, limit in rows]
    batch = DecodingBatch(torch.full((len(rows), 20), -7), states)
    found = drafter.draft(batch, count)
    ends = [(len(row.tokens), len(row.tokens) + n) for row, n in zip(states, found.lengths, strict=True)]
    return found, [batch.tokens[r, start:end].tolist() for r, (start, end) in enumerate(ends)]


def test_a_sequence_drafts_as_many_tokens_as_its_match_and_its_limit_allow(model):
    drafter = build_drafter(ngram_drafter(depth=4), model, RaggedKVCache(3, 20))
    found, written = drafted([([5, 6, 5, 6], 20), ([1, 2, 3], 20), ([5, 6, 5, 6], 7)], drafter, 4)
    assert found.lengths == [4, 0, 2] and found.distributions == []
    assert written == [[5, 6, 5, 6], [], [5, 6]]
    for row in range(3):
        drafter.reset_row(row)
    assert drafted([([1, 2, 3], 20), ([4, 5], 20)], drafter, 4)[0].lengths == [0, 0]


def test_copying_a_row_copies_its_index(model):
    drafter = build_drafter(ngram_drafter(depth=2), model, RaggedKVCache(2, 20))
    drafted([([1, 2, 3, 4], 20), ([5, 6, 7, 5], 20)], drafter, 2)
    drafter.copy_row(1, 0)
    drafter.reset_row(1)
    drafter.resize(3, 20)
    assert drafted([([5, 6, 7, 5], 20), ([6, 8, 6], 20), ([9, 3], 20)], drafter, 2)[1] == [[6, 7], [8, 6], []]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("longest", [1, 3])
def test_greedy_equals_transformers(model, batch, longest):
    stats = check_greedy(model, prompts(batch), ngram_drafter(depth=5, longest=longest), max_new_tokens=60)
    assert 0 < sum(stats.num_accepted_tokens_per_pos) < sum(stats.num_drafts_per_pos)


def test_without_a_match_every_step_has_no_drafts(model):
    stats = check_greedy(model, prompts(3), ngram_drafter(longest=20, shortest=20), max_new_tokens=9)
    assert sum(stats.num_drafts_per_pos) == 0 and stats.tokens_per_forward == 1


def test_length_limits_and_eos_inside_a_draft_end_the_sequence_there(model):
    rows = [[5, 9, 23, 4] * 3, [7, 31, 7, 31, 7]]
    for limit in (1, 2, 3, 5, 8, 9, 10):
        assert check_greedy(model, rows, ngram_drafter(), max_new_tokens=limit).tokens <= 2 * limit
    for eos in sorted(set(reference(model.trunk, rows, max_new_tokens=15)[1])):
        check_greedy(model, rows, ngram_drafter(), max_new_tokens=15, eos_token_id=[eos, 60])


def test_output_is_batch_invariant(model):
    rows = [*prompts(4), [5, 6, 5, 6], *prompts(2, seed=1)]
    stats = check_batch_invariance(model, rows, [30, 12, 45, 20, 1, 33, 25], ngram_drafter(depth=3))
    assert sum(stats.num_accepted_tokens_per_pos) > 0


def test_a_story_takes_fewer_forwards(shared):
    folder = shared / "models" / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = HeadwayModel.from_trunk(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), count=0)
    rows = [tokenizer(text)["input_ids"] for text in ("Once upon a time", "Lily and Tom went to the park. They", "The")]
    assert check_greedy(model, rows, ngram_drafter(), max_new_tokens=90).tokens_per_forward > 1.2


@pytest.mark.slow
def test_sampled_sequences_follow_the_enumerated_distribution():
    check_sampling(ngram_drafter(depth=2), {"temperature": 1.3, "top_k": 4, "top_p": 0.9})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth of at least 1, got 0"),
        ({"longest": 2, "shortest": 3}, "shortest=3 and longest=2"),
        ({"shortest": 0}, "shortest=0"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ngram_drafter(**arguments)
