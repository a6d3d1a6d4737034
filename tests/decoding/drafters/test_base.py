"""Drafts of every quality change the speed of decoding and never its text; a forgotten call of a factory is an error."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import DrafterFactory, RaggedKVCache
from headway.decoding.drafters.base import ChainDrafter, Draft, build_drafter
from headway.errors import ConfigError
from tests.references import check_greedy, prompts
from tests.tiny import tiny_trunk

PROMPT = [[5, 9, 23, 4, 40, 8], [7, 31, 8], [12]]


def batch(rows=PROMPT):
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _masked(answers):
    mask = batch()["attention_mask"]
    return zip(answers.tolist(), torch.cat([mask, torch.ones_like(answers)[:, mask.shape[1] :]], 1).tolist(), strict=True)


class ErringDrafter:
    """Drafts of the trunk's own continuation, a share `wrong` of them replaced by another token."""

    def __init__(self, answers, depth, wrong):
        self.depth, self.wrong, self.draft_sizes, self.hidden_state_layers = depth, wrong, tuple(range(depth + 1)), ()
        # the text of each prompt, by the prompt's first token
        self.answers = {answer[0]: answer for answer in answers}
        self.generator = torch.Generator().manual_seed(0)

    def observe(self, *_parts):
        pass

    config_key = ()
    copy_row = reset_row = resize = observe

    def extra_bytes(self, rows, capacity):
        return 0

    def max_draft_tokens(self, max_accepted):
        return min(max_accepted, self.depth)

    def catch_up_tokens(self, batch, num_draft_tokens):
        return 0

    def num_mask_tokens(self, num_draft_tokens, max_accepted):
        return 0

    def draft(self, batch, count):
        for r, row in enumerate(batch.rows):
            end = len(row.tokens)
            answer = torch.tensor(self.answers[row.tokens[0]][end : end + count], dtype=torch.long)
            spoilt = torch.rand(len(answer), generator=self.generator) < self.wrong
            batch.tokens[r, end : end + len(answer)] = torch.where(spoilt, (answer + 1) % 61, answer)
        return Draft([])


def erring_drafter(**settings):
    return DrafterFactory(lambda _model, _cache: ErringDrafter(**settings))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.5, 1.0])
def test_wrong_drafts_change_the_speed_and_never_the_text(count, wrong):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0)
    answers = model.trunk.generate(**batch(), max_new_tokens=30, do_sample=False)
    eos = answers[0, 6 + 13].item()
    texts = [[token for token, own in zip(row, mask, strict=True) if own] for row, mask in _masked(answers)]
    for limit, ends in [(24, [eos, 60]), (21, None)]:
        expected = model.trunk.generate(**batch(), max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=0)
        make = erring_drafter(answers=texts, depth=count, wrong=wrong)
        out = model.generate(**batch(), max_new_tokens=limit, eos_token_id=ends, pad_token_id=0, drafter=make, adaptive=False)
        assert torch.equal(out.sequences, expected)
    accepted, reached = sum(out.stats.num_accepted_tokens_per_pos), sum(out.stats.num_drafts_per_pos)
    if wrong in (0.0, 1.0):
        assert accepted == (reached if wrong == 0.0 else 0)
    else:
        assert 0 < accepted < reached
    if wrong == 0.0:
        assert out.stats.tokens_per_forward > (count + 1) * 0.6


class LastTokenDrafter(ChainDrafter):
    """Proposes the last token again."""

    def draft(self, batch, num_draft_tokens):
        batch.set_draft_tokens(batch.tokens_at(batch.ends - 1).expand(-1, num_draft_tokens))
        return Draft([], [num_draft_tokens] * len(batch.rows))


def test_a_drafter_of_chains_needs_a_draft_method_alone():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0).eval()
    factory = DrafterFactory(lambda _model, _cache: LastTokenDrafter(3))
    stats = check_greedy(model, prompts(4), factory, max_new_tokens=20, eos_token_id=None)
    assert stats.num_draft_tokens > 0


def my_drafter(depth=2):
    return DrafterFactory(lambda model, cache: None)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (my_drafter, r"drafter=my_drafter is not called yet: give my_drafter\(\.\.\.\)\."),
        (lambda model, cache: None, r"given as DrafterFactory\(<lambda>\)"),
        ("ngram", "drafter must be a factory such as ngram_drafter.*got 'ngram'"),
        (3, "got a int"),
    ],
    ids=["not called", "plain function", "name", "number"],
)
def test_anything_but_a_factory_is_refused_with_the_way_out(factory, message):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0)
    with pytest.raises(ConfigError, match=message):
        build_drafter(factory, model, RaggedKVCache(1, 4))
