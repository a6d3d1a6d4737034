"""Slots of the ragged cache: writes, copies of rows, and compaction."""

import pytest
import torch

from headway.decoding import RaggedKVCache


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
