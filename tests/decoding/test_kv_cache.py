"""Entries of the ragged cache are those that were written, wherever, and stay when rows move or the cache grows."""

import pytest
import torch

from headway.decoding.kv_cache import RaggedKVCache, round_up_to_block


def states(rows, tokens, value=0.0):
    return torch.arange(rows * 2 * tokens * 3, dtype=torch.float32).view(rows, 2, tokens, 3) + value


def written(rows=3, capacity=8):
    cache = RaggedKVCache(rows, capacity)
    cache.set_write_slots(torch.arange(4).expand(rows, -1), 4, contiguous_start=0)
    cache.update(states(rows, 4), states(rows, 4, 0.5), 0)
    return cache


def test_scattered_and_contiguous_writes_store_the_same():
    whole, scattered = written(), RaggedKVCache(3, 8)
    scattered.set_write_slots(torch.arange(4).expand(3, -1), 4)
    for left, right in zip(scattered.update(states(3, 4), states(3, 4, 0.5), 0), (states(3, 4), states(3, 4, 0.5)), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(whole.buffers[0][0][:, :, :4], scattered.buffers[0][0][:, :, :4])


def test_rows_write_at_their_own_lengths_and_padding_goes_nowhere_that_is_read():
    cache = written()
    before = cache.buffers[0][0].clone()
    cache.set_write_slots(torch.tensor([[4, 5], [2, -1]]), 6, first=1)
    keys, _ = cache.update(states(2, 2, 100.0), states(2, 2, 200.0), 0)
    new = states(2, 2, 100.0)
    assert keys.shape == (2, 2, 6, 3) and torch.equal(keys[0, :, 4:6], new[0]) and torch.equal(keys[1, :, 2], new[1, :, 0])
    assert torch.equal(keys[0, :, :4], before[1, :, :4]) and torch.equal(cache.buffers[0][0][0, :, :8], before[0, :, :8])


def test_compact_copy_and_resize_keep_entries():
    cache = written()
    before = [part.clone() for part in cache.buffers[0]]
    cache.compact(torch.tensor([[3, -1], [2, 3]]), torch.tensor([[1, -1], [0, 1]]))
    cache.copy_row(1, 2)
    cache.resize(4, 20)
    for now, old in zip(cache.buffers[0], before, strict=True):
        assert now.shape == (4, 2, 21, 3)
        assert torch.equal(now[0, :, 1], old[0, :, 3]) and torch.equal(now[0, :, 2:4], old[0, :, 2:4])
        assert torch.equal(now[1, :, :2], old[1, :, 2:4]) and torch.equal(now[2], now[1])


def test_what_does_not_fit_is_refused_and_blocks_are_whole():
    with pytest.raises(ValueError, match="3 rows of 8 slots, fewer than the 3 of 9"):
        written().set_write_slots(torch.zeros(3, 1, dtype=torch.long), 9)
    with pytest.raises(RuntimeError, match="set_write_slots"):
        RaggedKVCache(1, 1).update(states(1, 1), states(1, 1), 0)
    assert [round_up_to_block(n) for n in (1, 64, 65)] == [64, 64, 128]


def test_padding_is_written_outside_the_slots_that_attention_reads():
    cache = RaggedKVCache(2, 4)
    keys = torch.arange(1.0, 7.0).view(2, 1, 3, 1)
    cache.set_write_slots(torch.tensor([[0, 1, 2], [0, -1, -1]]), 3)
    seen, _ = cache.update(keys, keys, 7)
    assert seen[:, 0, :, 0].tolist() == [[1, 2, 3], [4, 0, 0]]
    cache.set_write_slots(torch.tensor([[2], [1]]), 3)  # row 0 rejected what stood in slot 2
    seen, _ = cache.update(keys[:, :, :1] * 10, keys[:, :, :1], 7)
    assert seen[:, 0, :, 0].tolist() == [[1, 2, 10], [4, 40, 0]]
    cache.copy_row(1, 0)
    cache.resize(3, 5)
    cache.set_write_slots(torch.tensor([[2], [0]]), 3)
    assert cache.update(keys[:, :, 2:], keys[:, :, 2:], 7)[0][:, 0, :, 0].tolist() == [[4, 40, 3], [6, 40, 0]]
    cache.set_write_slots(torch.tensor([[3]]), 4, first=2)  # the new row stands alone
    assert cache.update(keys[:1, :, :1], keys[:1, :, :1], 7)[0][0, 0, :, 0].tolist() == [0, 0, 0, 1]
    cache.compact(torch.tensor([[2, 2], [1, -1]]), torch.tensor([[0, 1], [0, 3]]))
    cache.set_write_slots(torch.tensor([[3], [3]]), 4)
    assert cache.update(keys[:, :, 2:], keys[:, :, 2:], 7)[0][:, 0, :, 0].tolist() == [[3, 3, 3, 3], [40, 40, 0, 6]]
    with pytest.raises(ValueError, match="3 rows of 5 slots, fewer than the 1 of 6"):
        cache.set_write_slots(torch.tensor([[4]]), 6)
