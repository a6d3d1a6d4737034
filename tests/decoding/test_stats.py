"""Counts add up, and the time of a step is shared by its sequences."""

from types import SimpleNamespace

import pytest

from headway.decoding.stats import DecodeStats, SequenceCounts, StepClock


def counts(tokens, forwards, *verifications):
    found = SequenceCounts(3)
    found.tokens, found.num_sequence_forwards = tokens, forwards
    for verification in verifications:
        found.record_drafts(*verification)
    return found


def test_a_rejected_draft_is_the_last_whose_predecessors_were_accepted():
    stats = counts(9, 4, (3, 3, 1), (3, 3, 3), (2, 2, 0)).stats(4, {})
    assert stats.num_drafts_per_pos == (3, 2, 1) and stats.num_accepted_tokens_per_pos == (2, 1, 1)
    assert stats.num_draft_tokens == 8 and stats.acceptance == (2 / 3, 1 / 2, 1.0) and stats.tokens_per_forward == 9 / 4


def test_merged_statistics_are_sums_also_of_different_depths():
    one = counts(4, 2, (3, 3, 2)).stats(2, {"verify": 1.0})
    other = DecodeStats(5, 5, 3, (1,), (1,), 1, {"verify": 0.5, "draft": 0.25})
    merged = DecodeStats.merge([one, other])
    assert merged.num_drafts_per_pos == (2, 1, 1) and merged.num_accepted_tokens_per_pos == (2, 1, 0)
    assert (merged.tokens, merged.num_steps, merged.tokens_per_second) == (9, 5, 9 / 1.75)
    assert DecodeStats.merge([]).tokens_per_forward == DecodeStats.merge([]).tokens_per_second == 0.0


def test_a_sequence_has_its_share_of_the_phases_it_took_part_in(monkeypatch):
    times = iter([0.0, 4.0, 10.0, 16.0, 20.0, 21.0])
    monkeypatch.setattr("headway.decoding.stats.time.perf_counter", lambda: next(times))
    clock = StepClock()
    early, late = (SimpleNamespace(seconds={}, since={}) for _ in range(2))
    clock.start(early, "verify")
    with clock.timed("verify", 1):
        pass
    clock.start(late, "verify")
    with clock.timed("verify", 2):
        pass
    clock.stop(early)
    with clock.timed("verify", 1):
        pass
    clock.stop(late)
    assert early.seconds == {"verify": 4.0 + 3.0} and late.seconds == {"verify": 3.0 + 1.0}
    assert sum(clock.seconds.values()) == pytest.approx(11.0)
