"""Drafts of every quality, from heads that are told the answer: they change how fast, never what."""

from importlib import import_module

import pytest
import torch
from scipy import stats as statistics

from headway import HeadwayModel
from headway.decoding import RaggedCache
from headway.decoding.drafting import SequentialDrafter
from headway.ops.acceptance import accept_sampled
from tests.tiny import tiny_trunk

PROMPT = [[5, 9, 23, 4, 40, 8], [7, 31, 8], [12]]


def batch(rows=PROMPT):
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


class Told:
    """Stands in for a drafter: drafts the trunk's own continuation, with a share `wrong` of its tokens spoilt."""

    def __init__(self, answers, wrong):
        self.answers, self.wrong = answers, wrong
        self.generator = torch.Generator().manual_seed(0)

    def observe(self, forward, at):
        pass

    def select(self, keep):
        pass

    def draft(self, rows, count, scores):
        for r, (index, end) in enumerate(zip(rows.index, rows.ends, strict=True)):
            answer = self.answers[index, end : end + count]
            spoilt = torch.rand(len(answer), generator=self.generator) < self.wrong
            rows.tokens[r, end : end + len(answer)] = torch.where(spoilt, (answer + 1) % 61, answer)
        return []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.5, 1.0])
def test_told_drafts_change_the_speed_only(monkeypatch, count, wrong):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=count)
    answers = model.trunk.generate(**batch(), max_new_tokens=30, do_sample=False)
    eos = answers[0, 6 + 13].item()
    module = import_module("headway.decoding.generate")  # the package has a function of that name
    monkeypatch.setattr(module, "drafter_for", lambda *parts: Told(answers, wrong))
    for limit, ends in [(24, [eos, 60]), (21, None)]:
        expected = model.trunk.generate(**batch(), max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=0)
        out = model.generate(**batch(), max_new_tokens=limit, eos_token_id=ends, pad_token_id=0)
        assert torch.equal(out.sequences, expected)
    accepted, reached = sum(out.stats.accepted), sum(out.stats.reached)
    if wrong in (0.0, 1.0):
        assert accepted == (reached if wrong == 0.0 else 0)
    else:
        assert 0 < accepted < reached
    if wrong == 0.0:
        assert out.stats.tokens_per_forward > (count + 1) * 0.6


def test_sequential_depths_keep_no_trace_of_rejected_drafts():
    """Each draft equals the one of a fresh decoding that starts at the same prefix."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=3)
    drafted = {}

    def record(self, rows, count, scores):
        found = plain(self, rows, count, scores)
        for r, (pad, end) in enumerate(zip(rows.pads, rows.ends, strict=True)):
            prefix = tuple(rows.tokens[r, pad:end].tolist())
            drafted[prefix] = rows.tokens[r, end : end + count].tolist()
        return found

    plain = SequentialDrafter.draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SequentialDrafter, "draft", record)
        model.generate(**batch(), max_new_tokens=20, eos_token_id=None)
        long = dict(drafted)
        drafted.clear()
        for prefix in list(long)[::4]:
            if len(long[prefix]) == 3:
                model.generate(torch.tensor([prefix[:-1]]), max_new_tokens=6, eos_token_id=None)
                assert drafted[prefix] == long[prefix]


def test_a_limited_row_takes_its_token_from_the_trunk_where_its_drafts_end():
    """Drafts beyond the limit are as if they were not there: the token after them is drawn from p, not from p - q."""
    count = 4000
    p = torch.tensor([0.7, 0.2, 0.1])
    q = torch.tensor([0.1, 0.1, 0.8])
    generator = torch.Generator().manual_seed(0)
    drafts = torch.multinomial(q.expand(count, -1), 2, replacement=True, generator=generator)
    limit = torch.arange(count) % 3
    out = accept_sampled(p.expand(count, 3, -1), q.expand(count, 2, -1), drafts, generator, limit)
    assert (out.kept <= limit).all()
    first = torch.where(out.kept > 0, drafts[:, 0], out.following)
    for k in range(3):
        seen = torch.bincount(first[limit == k], minlength=3)
        expected = p.double() / p.double().sum() * len(first[limit == k])
        assert statistics.chisquare(seen.numpy(), expected.numpy()).pvalue > 1e-4


def test_the_cache_puts_padding_where_nobody_looks():
    cache = RaggedCache(4)
    keys = torch.arange(1.0, 7.0).view(2, 1, 3, 1)
    cache.begin(torch.tensor([[0, 1, 2], [0, -1, -1]]), 3)
    seen, _ = cache.update(keys, keys, 7)
    assert seen[:, 0, :, 0].tolist() == [[1, 2, 3], [4, 0, 0]]
    cache.begin(torch.tensor([[2], [1]]), 3)  # row 0 rejected what stood in slot 2
    seen, _ = cache.update(keys[:, :, :1] * 10, keys[:, :, :1], 7)
    assert seen[:, 0, :, 0].tolist() == [[1, 2, 10], [4, 40, 0]]
    cache.select(torch.tensor([1]))
    cache.begin(torch.tensor([[2]]), 3)
    assert cache.update(keys[:1, :, 2:], keys[:1, :, 2:], 7)[0][0, 0, :, 0].tolist() == [4, 40, 3]
    with pytest.raises(ValueError, match="4 slots, fewer than the 5"):
        cache.begin(torch.tensor([[4]]), 5)
