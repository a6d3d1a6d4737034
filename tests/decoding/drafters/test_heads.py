"""Drafts of every quality, from heads that are told the answer: they change how fast, never what."""

import pytest
import torch
from scipy import stats as statistics

from headway import HeadwayModel
from headway.decoding import RaggedKVCache, heads_drafter
from headway.decoding.drafters.base import Draft, DrafterFactory
from headway.decoding.drafters.chained import ChainedDrafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.errors import UnsupportedModelError
from headway.ops.verification.rejection import accept_sampled
from tests.tiny import ALL, tiny_trunk

PROMPT = [[5, 9, 23, 4, 40, 8], [7, 31, 8], [12]]


def batch(rows=PROMPT):
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _masked(answers):
    mask = batch()["attention_mask"]
    return zip(answers.tolist(), torch.cat([mask, torch.ones_like(answers)[:, mask.shape[1] :]], 1).tolist(), strict=True)


class Told:
    """Stands in for a drafter: drafts the trunk's own continuation, with a share `wrong` of its tokens spoilt."""

    def __init__(self, answers, depth, wrong):
        self.depth, self.wrong, self.draft_sizes, self.hidden_state_layers = depth, wrong, tuple(range(depth + 1)), ()
        # what follows each prompt, told apart by its first token
        self.answers = {answer[0]: answer for answer in answers}
        self.generator = torch.Generator().manual_seed(0)

    def observe(self, *_parts):
        pass

    config_key = ()
    move_row = reset_row = resize = observe

    def extra_bytes(self, rows, capacity):
        return 0

    def max_draft_tokens(self, max_accepted):
        return min(max_accepted, self.depth)

    def catch_up_tokens(self, batch, count):
        return 0

    def num_mask_tokens(self, count, max_accepted):
        return 0

    def draft(self, batch, count):
        for r, row in enumerate(batch.rows):
            end = len(row.tokens)
            answer = torch.tensor(self.answers[row.tokens[0]][end : end + count], dtype=torch.long)
            spoilt = torch.rand(len(answer), generator=self.generator) < self.wrong
            batch.tokens[r, end : end + len(answer)] = torch.where(spoilt, (answer + 1) % 61, answer)
        return Draft([])


def oracle_drafter(**told):
    return DrafterFactory(lambda _model, _cache: Told(**told))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.5, 1.0])
def test_told_drafts_change_the_speed_only(count, wrong):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0)
    answers = model.trunk.generate(**batch(), max_new_tokens=30, do_sample=False)
    eos = answers[0, 6 + 13].item()
    told = [[token for token, own in zip(row, mask, strict=True) if own] for row, mask in _masked(answers)]
    for limit, ends in [(24, [eos, 60]), (21, None)]:
        expected = model.trunk.generate(**batch(), max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=0)
        make = oracle_drafter(answers=told, depth=count, wrong=wrong)
        out = model.generate(**batch(), max_new_tokens=limit, eos_token_id=ends, pad_token_id=0, drafter=make, adaptive=False)
        assert torch.equal(out.sequences, expected)
    accepted, reached = sum(out.stats.num_accepted_tokens_per_pos), sum(out.stats.num_drafts_per_pos)
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

    def record(self, batch, count):
        found = plain(self, batch, count)
        for r, row in enumerate(batch.rows):
            end = len(row.tokens)
            drafted[tuple(row.tokens)] = batch.tokens[r, end : end + count].tolist()
        return found

    plain = ChainedDrafter.draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChainedDrafter, "draft", record)
        model.generate(**batch(), max_new_tokens=20, eos_token_id=None, adaptive=False)
        long = dict(drafted)
        drafted.clear()
        for prefix in list(long)[::4]:
            if len(long[prefix]) == 3:
                model.generate(torch.tensor([prefix[:-1]]), max_new_tokens=6, eos_token_id=None, adaptive=False)
                assert drafted[prefix] == long[prefix]


@pytest.mark.parametrize("architecture", ALL)
def test_parallel_heads_draft_from_the_cache_what_they_say_of_the_whole_text(architecture):
    try:
        model = HeadwayModel.from_trunk(tiny_trunk(architecture), count=2).eval()
    except UnsupportedModelError as error:
        pytest.skip(str(error))
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    drafted = []

    def record(self, batch, count):
        found = plain(self, batch, count)
        drafted.extend((list(row.tokens), batch.draft_tokens(count)[r].tolist()) for r, row in enumerate(batch.rows))
        return found

    plain = ParallelDrafter.draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParallelDrafter, "draft", record)
        chain = heads_drafter("chain")
        model.generate(**batch(), max_new_tokens=20, eos_token_id=None, adaptive=False, drafter=chain)
    assert len(drafted) > 12
    with torch.no_grad():
        for tokens, drafts in drafted[::3]:
            states = model(torch.tensor([tokens[:-1]])).hidden_states[1 : 1 + len(drafts)]
            assert drafts == [int(model.view.unembedding.logits(state[0, -1]).argmax()) for state in states]


def test_a_limited_row_takes_its_token_from_the_trunk_where_its_drafts_end():
    """Drafts beyond the limit are as if they were not there: the token after them is drawn from p, not from p - q."""
    count = 4000
    p = torch.tensor([0.7, 0.2, 0.1])
    q = torch.tensor([0.1, 0.1, 0.8])
    generator = torch.Generator().manual_seed(0)
    drafts = torch.multinomial(q.expand(count, -1), 2, replacement=True, generator=generator)
    limit = torch.arange(count) % 3
    out = accept_sampled(p.expand(count, 3, -1), q.expand(count, 2, -1), drafts, generator, limit)
    assert (out.num_accepted <= limit).all()
    first = torch.where(out.num_accepted > 0, drafts[:, 0], out.bonus_token)
    for k in range(3):
        seen = torch.bincount(first[limit == k], minlength=3)
        expected = p.double() / p.double().sum() * len(first[limit == k])
        assert statistics.chisquare(seen.numpy(), expected.numpy()).pvalue > 1e-4


def test_the_cache_puts_padding_where_nobody_looks():
    cache = RaggedKVCache(2, 4)
    keys = torch.arange(1.0, 7.0).view(2, 1, 3, 1)
    cache.set_write_slots(torch.tensor([[0, 1, 2], [0, -1, -1]]), 3)
    seen, _ = cache.update(keys, keys, 7)
    assert seen[:, 0, :, 0].tolist() == [[1, 2, 3], [4, 0, 0]]
    cache.set_write_slots(torch.tensor([[2], [1]]), 3)  # row 0 rejected what stood in slot 2
    seen, _ = cache.update(keys[:, :, :1] * 10, keys[:, :, :1], 7)
    assert seen[:, 0, :, 0].tolist() == [[1, 2, 10], [4, 40, 0]]
    cache.move_row(1, 0)
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
