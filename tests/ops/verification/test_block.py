"""Block verification draws from the target and keeps at least as much as token-level rejection, by enumeration of all drafts.

Prefixes are numbered like a heap: 0 is the empty one, and the prefix i followed by token x is i * vocab + x + 1.
"""

import itertools

import pytest
import torch
from torch import Tensor

from headway.ops.verification.block import BlockOutcomes, accept_block, block_outcomes
from headway.ops.verification.greedy import accept_greedy
from headway.ops.verification.rejection import accept_sampled

KINDS = ["independent", "equal", "near", "disjoint", "certain draft", "certain target"]


def random_models(seed: int, cases: int, vocab: int, depth: int) -> tuple[Tensor, Tensor]:
    """A target and a draft distribution after every prefix of up to `depth` tokens, (cases, prefixes, vocab) in float64."""
    g = torch.Generator().manual_seed(seed)
    shape = (cases, sum(vocab**d for d in range(depth + 1)), vocab)

    def distributions() -> Tensor:
        sharpness = torch.tensor([0.0, 1.0, 3.0, 12.0], dtype=torch.float64)[torch.randint(4, shape[:2], generator=g)]
        weights = (sharpness[..., None] * torch.randn(shape, generator=g, dtype=torch.float64)).exp()
        cut = (torch.rand(shape, generator=g) < 0.4) & (torch.rand(shape[:2], generator=g) < 0.5)[..., None]
        return weights * (~cut | (torch.arange(vocab) == torch.randint(vocab, (*shape[:2], 1), generator=g)))

    def certain() -> Tensor:
        return torch.nn.functional.one_hot(torch.randint(vocab, shape[:2], generator=g), vocab).double()

    target, draft = distributions(), distributions()
    half = torch.rand(shape, generator=g).argsort(-1) < vocab // 2
    # half of the cases mix the kinds from one prefix to the next, the others are of one kind throughout
    kind = torch.randint(len(KINDS), shape[:2], generator=g)
    kind = torch.where(torch.rand(cases, 1, generator=g) < 0.5, kind, kind[:, :1])[..., None]
    near = target * (0.3 * torch.randn(shape, generator=g, dtype=torch.float64)).exp()
    drafts = [draft, target, near, (draft + 0.1) * half, certain(), draft]
    targets = [target, target, target, (target + 0.1) * ~half, target, certain()]
    target = sum(torch.where(kind == k, weights, 0) for k, weights in enumerate(targets))
    draft = sum(torch.where(kind == k, weights, 0) for k, weights in enumerate(drafts))
    return target / target.sum(-1, keepdim=True), draft / draft.sum(-1, keepdim=True)


def output_law(target: Tensor, mass: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """The law of the first depth + 1 tokens when a step makes prefix i and then y with `mass[:, i, y]` and the target goes on,
    and the law of the target itself; (cases, prefixes of depth + 1 tokens) each."""
    cases, _, vocab = target.shape
    ours, own = torch.zeros(cases, 1, dtype=target.dtype), torch.ones(cases, 1, dtype=target.dtype)
    start = 0
    for d in range(depth + 1):
        here = slice(start, start + vocab**d)
        ours = (ours[..., None] * target[:, here] + mass[:, here]).flatten(1)
        own = (own[..., None] * target[:, here]).flatten(1)
        start += vocab**d
    return ours, own


def all_drafts(target: Tensor, draft: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Every sequence of drafts for every case: target and draft rows, tokens, prefixes and how likely the drafts are."""
    cases, _, vocab = target.shape
    tokens = torch.tensor(list(itertools.product(range(vocab), repeat=depth)))  # (sequences, depth)
    prefixes = [torch.zeros(len(tokens), dtype=torch.long)]
    for d in range(depth):
        prefixes.append(prefixes[-1] * vocab + tokens[:, d] + 1)
    prefix = torch.stack(prefixes, 1)  # (sequences, depth + 1)
    p, q = target[:, prefix], draft[:, prefix[:, :-1]]  # (cases, sequences, depth (+ 1), vocab)
    rows = tokens.expand(cases, -1, -1)
    likely = q.gather(3, rows[..., None]).squeeze(3).prod(2)  # (cases, sequences)
    return p.flatten(0, 1), q.flatten(0, 1), rows.flatten(0, 1), prefix, likely


def token_law(target: Tensor, draft: Tensor, tokens: Tensor, limit: Tensor) -> BlockOutcomes:
    """Token-level rejection from its definition: accept with min(1, p / q), then norm(max(p - q, 0)), or p after the last."""
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)
    q = draft.gather(2, tokens[..., None]).squeeze(2)
    accept = torch.where(p >= q, 1.0, p / q)
    accept = torch.where(torch.arange(tokens.shape[1]) < limit[:, None], accept, 0.0)
    reach = torch.cat([torch.ones_like(target[:, :1, 0]), accept.cumprod(1)], 1)
    kept = reach - torch.cat([reach[:, 1:], torch.zeros_like(reach[:, :1])], 1)
    rest = (target[:, :-1] - draft).clamp(min=0)
    rest = rest / rest.sum(-1, keepdim=True)
    rejected = (torch.arange(tokens.shape[1]) < limit[:, None])[..., None] & ~rest.isnan()
    return BlockOutcomes(kept, torch.cat([torch.where(rejected, rest, target[:, :-1]), target[:, -1:]], 1))


GROUPS = [(2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3), (5, 1), (5, 2), (5, 3)]


@pytest.mark.parametrize(("vocab", "depth"), GROUPS)
def test_output_is_the_targets_and_no_fewer_are_kept_than_token_by_token(vocab: int, depth: int):
    cases = 400
    target, draft = random_models(100 * vocab + depth, cases, vocab, depth)
    p, q, tokens, prefix, likely = all_drafts(target, draft, depth)
    ends = torch.randint(depth + 1, (cases,), generator=torch.Generator().manual_seed(depth))
    ends[::2] = depth  # half of the cases have all of their drafts
    limit = ends.repeat_interleave(len(prefix))
    expected = []
    for law in block_outcomes(p, q, tokens, limit), token_law(p, q, tokens, limit):
        assert torch.allclose(law.num_accepted.sum(1), torch.ones(len(limit), dtype=torch.float64))
        assert (law.num_accepted >= 0).all() and (law.num_accepted * (torch.arange(depth + 1) > limit[:, None]) == 0).all()
        torch.testing.assert_close(law.bonus_token.sum(2), torch.ones_like(law.num_accepted))
        kept = likely[..., None] * law.num_accepted.unflatten(0, (cases, -1))  # (cases, sequences, depth + 1)
        made = kept[..., None] * law.bonus_token.unflatten(0, (cases, -1))
        mass = torch.zeros_like(target).index_add(1, prefix.flatten(), made.flatten(1, 2))
        torch.testing.assert_close(*output_law(target, mass, depth), rtol=0, atol=1e-9)
        expected.append((kept.sum(1) * torch.arange(depth + 1)).sum(1))
    block, token = expected
    assert (block >= token - 1e-12).all()
    better = int((block > token + 1e-3).sum())
    assert better > cases // 20 if depth > 1 else better == 0  # one draft is judged alike by both


def test_the_public_rule_draws_from_its_law():
    target, draft = random_models(3, 6, 3, 2)
    g, count = torch.Generator().manual_seed(0), 20_000
    for case in range(6):
        p, q, tokens, _, likely = all_drafts(target[case : case + 1], draft[case : case + 1], 2)
        row = int(likely.argmax())
        law = block_outcomes(p[row : row + 1], q[row : row + 1], tokens[row : row + 1])
        out = accept_block(*(x[row].expand(count, *x.shape[1:]) for x in (p, q, tokens)), g)
        joint = (law.num_accepted[..., None] * law.bonus_token).flatten()
        share = torch.bincount(out.num_accepted * 3 + out.bonus_token, minlength=9) / count
        assert ((share - joint).abs() <= 5 * (joint * (1 - joint) / count).sqrt() + 1e-12).all()


def test_float32_of_a_large_vocabulary_stays_close_to_float64():
    g = torch.Generator().manual_seed(0)
    target, draft = (torch.softmax(4 * torch.randn(8, 5, 5000, generator=g, dtype=torch.float64), -1) for _ in range(2))
    draft = (0.7 * target + 0.3 * draft)[:, :-1]
    tokens = torch.multinomial(draft.flatten(0, 1), 1, generator=g).view(8, 4)
    exact, rough = block_outcomes(target, draft, tokens), block_outcomes(target.float(), draft.float(), tokens)
    torch.testing.assert_close(rough.num_accepted.double(), exact.num_accepted, rtol=0, atol=1e-5)
    torch.testing.assert_close(rough.bonus_token.double(), exact.bonus_token, rtol=0, atol=1e-5)


def test_what_lies_beyond_the_limit_changes_nothing_even_nan():
    target, draft = random_models(7, 40, 3, 3)
    p, q, tokens, _, likely = all_drafts(target, draft, 3)
    drawn = likely.flatten() > 0
    p, q, tokens = p[drawn], q[drawn], tokens[drawn]
    limit = torch.ones(len(tokens), dtype=torch.long)
    short = block_outcomes(p[:, :2], q[:, :1], tokens[:, :1])
    p[:, 2:], q[:, 1:] = torch.nan, torch.nan
    long = block_outcomes(p, q, tokens, limit)
    torch.testing.assert_close(long.num_accepted[:, :2], short.num_accepted)
    torch.testing.assert_close(long.bonus_token[:, :2], short.bonus_token)
    assert (long.num_accepted[:, 2:] == 0).all()
    assert (accept_block(p, q, tokens, limit=limit).num_accepted <= 1).all()


def test_without_drafts_the_target_is_drawn_from():
    target = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    for limit in (None, torch.tensor([0, 0])):
        out = accept_block(target, torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.long), limit=limit)
        assert out.num_accepted.tolist() == [0, 0] and out.bonus_token.tolist() == [1, 0]


def test_a_certain_target_is_followed_as_greedily_as_accept_greedy_does():
    g = torch.Generator().manual_seed(1)
    target = torch.nn.functional.one_hot(torch.randint(3, (500, 5), generator=g), 3).double()
    draft = torch.full((500, 4, 3), 1 / 3, dtype=torch.float64)
    tokens = torch.randint(3, (500, 4), generator=g)
    greedy = accept_greedy(target, tokens)
    for out in accept_block(target, draft, tokens, g), accept_sampled(target, draft, tokens, g):
        assert torch.equal(out.num_accepted, greedy.num_accepted) and torch.equal(out.bonus_token, greedy.bonus_token)


@pytest.mark.parametrize(
    ("target", "draft", "tokens"),
    [
        ((1, 2, 3), (1, 2, 3), (1, 2)),
        ((1, 3, 3), (1, 1, 3), (1, 2)),
        ((1, 3, 3), (1, 2, 4), (1, 2)),
        ((2, 3, 3), (1, 2, 3), (1, 2)),
    ],
)
def test_shapes_that_disagree_are_refused(target: tuple[int, ...], draft: tuple[int, ...], tokens: tuple[int, ...]):
    with pytest.raises(ValueError, match="shapes disagree"):
        accept_block(torch.ones(target), torch.ones(draft), torch.zeros(tokens, dtype=torch.long))
