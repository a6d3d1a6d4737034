"""Sequences get batch slots in order, forks get the rows of their leader, and rows stay with their sequences."""

from collections import deque

import torch

from headway import HeadwayModel
from headway.decoding.batch import SequenceState
from headway.decoding.scheduler import Scheduler, step_slots
from headway.decoding.stopping import FinishReason
from tests.tiny import tiny_trunk

MODEL = HeadwayModel.from_trunk(tiny_trunk(), count=0).eval()


def sequence(prompt, group=None, new=5):
    return SequenceState(list(prompt), len(prompt), len(prompt) + new, None, None, group=group)


def held(scheduler):
    """Per sequence: its row of the token buffer holds its prompt."""
    rows = [*scheduler.batch.rows, *scheduler.prefilling]
    return [
        scheduler.batch.tokens[r, : row.prompt_length].tolist() == row.tokens[: row.prompt_length] for r, row in enumerate(rows)
    ]


def test_sequences_are_admitted_in_order_while_slots_and_tokens_last():
    scheduler, waiting = Scheduler(MODEL, None, 60, 4), deque(sequence([n, 5, 6]) for n in range(9))
    assert scheduler.admit(waiting, 4) == [] and len(waiting) == 5 and scheduler.num_sequences == 4
    assert [row.tokens[0] for row in scheduler.prefilling] == [0, 1, 2, 3] and all(held(scheduler))
    assert scheduler.admit(waiting, 16) == [] and scheduler.num_sequences == 7  # 7 rows of 8 tokens, not 8
    assert scheduler.allows(7, 8) and not scheduler.allows(8, 8)


def test_shorter_prompts_stand_before_longer_ones():
    scheduler = Scheduler(MODEL, None, None, 4)
    scheduler.admit(deque([sequence([1] * 20), sequence([2] * 3), sequence([3] * 9)]), 16)
    assert [row.tokens[0] for row in scheduler.prefilling] == [2, 3, 1] and all(held(scheduler))


def test_forks_take_reserved_slots_and_copies_of_the_row():
    scheduler, group = Scheduler(MODEL, None, None, 4), object()
    waiting = deque([sequence([7, 8]), *(sequence([5, 6, 9], group) for _ in range(3)), sequence([1] * 30)])
    scheduler.admit(waiting, 16)
    assert scheduler.num_sequences == 5 and len(scheduler.prefilling) == 3
    assert scheduler.add_to_batch(2) == [0, 1, 1, 1]
    assert len(scheduler.batch.rows) == 4 and len(scheduler.prefilling) == 1 and all(held(scheduler))


def test_the_last_row_fills_the_gap_of_a_removed_sequence_and_an_heir_continues_a_prefill():
    scheduler, group = Scheduler(MODEL, None, None, 4), object()
    first = [sequence([n, n]) for n in (1, 2, 3)]
    scheduler.admit(deque(first), 16)
    scheduler.add_to_batch(3)
    samples = [sequence([5] * 9, group) for _ in range(3)]
    scheduler.admit(deque([*samples, sequence([6] * 9)]), 16)
    samples[0].prefilled = 4
    scheduler.remove([first[0], samples[0], samples[1]])
    assert scheduler.batch.rows == [first[2], first[1]] and all(held(scheduler))
    assert scheduler.prefilling[0] is samples[2] and samples[2].prefilled == 4 and samples[0].finished and samples[1].finished


def test_recovery_removes_ended_sequences_and_begins_prompts_again():
    scheduler = Scheduler(MODEL, None, None, 4)
    rows = [sequence([1, 2]), sequence([3, 4]), sequence([5] * 9)]
    scheduler.admit(deque(rows), 16)
    scheduler.add_to_batch(2)
    rows[0].finish_reason, rows[2].prefilled = FinishReason.STOP, 4
    scheduler.batch.tokens[2] = torch.zeros_like(scheduler.batch.tokens[2])
    scheduler.recover()
    assert scheduler.batch.rows == [rows[1]] and rows[0].finished and rows[2].prefilled == 0 and all(held(scheduler))


def test_mask_tokens_take_slots_after_each_token_of_a_step():
    assert (step_slots(3, 0), step_slots(3, 2), step_slots(0, 2)) == (3, 11, 2)
