"""What comes out of multi-candidate rejection is distributed as the target, by enumeration of all drafts and all outcomes; and the
rule is the papers', a case at a time."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from random import Random

import pytest
import torch
from torch import Tensor

from headway.ops.draft_tree import Tree
from headway.ops.sampling import apply_temperature_top_k_top_p
from headway.ops.verification.multi_candidate import accept_candidates
from headway.ops.verification.rejection import accept_sampled

# vocabulary, parents of the drafts, cases: a node of 1 to 5 children (also more than there are tokens), and trees of depth 2 and 3
GROUPS = [
    *((vocab, (0,) * children, 600) for vocab in (2, 3, 4) for children in range(1, vocab + 2)),
    (3, (0, 0, 1, 1), 800),
    (3, (0, 0, 0, 2, 2, 1), 800),
    (4, (0, 1, 0, 1), 600),
    (2, (0, 0, 1, 2, 2), 600),
    (2, (0, 1, 2, 0, 4, 2), 200),
]
DTYPES = torch.float32, torch.float64
KINDS = ["independent", "equal", "near", "disjoint", "certain draft", "certain target", "top-k 1"]


def random_models(seed: int, cases: int, prefixes: int, vocab: int) -> tuple[Tensor, Tensor]:
    """Target and draft distributions, (cases, prefixes, vocab) in float64, of all kinds."""
    g = torch.Generator().manual_seed(seed)
    size = (cases, prefixes)

    def weights() -> Tensor:
        sharpness = torch.tensor([0.0, 1.0, 3.0, 12.0], dtype=torch.float64)[torch.randint(4, size, generator=g)]
        found = (sharpness[..., None] * torch.randn(*size, vocab, generator=g, dtype=torch.float64)).exp()
        cut = (torch.rand(*size, vocab, generator=g) < 0.4) & (torch.rand(size, generator=g) < 0.5)[..., None]
        return found * (~cut | (torch.arange(vocab) == torch.randint(vocab, (*size, 1), generator=g)))

    def certain() -> Tensor:
        return torch.nn.functional.one_hot(torch.randint(vocab, size, generator=g), vocab).double()

    target, draft = weights(), weights()
    half = torch.rand(*size, vocab, generator=g).argsort(-1) < vocab // 2
    near = target * (0.3 * torch.randn(*size, vocab, generator=g, dtype=torch.float64)).exp()
    first = torch.nn.functional.one_hot(draft.argmax(-1), vocab).double()
    kind = torch.randint(len(KINDS), size, generator=g)[..., None]
    drafts = [draft, target, near, (draft + 0.1) * half, certain(), draft, first]
    targets = [target, target, target, (target + 0.1) * ~half, target, certain(), target]
    p = sum(torch.where(kind == k, w, 0) for k, w in enumerate(targets))
    q = sum(torch.where(kind == k, w, 0) for k, w in enumerate(drafts))
    return p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)


Decide = Callable[[int, float], bool]


def judged(p: list[float], q: list[float], children: list[tuple[int, int]], decide: Decide) -> tuple[int | None, list[float]]:
    """One node, as the papers say: the child that stays, and what the token is drawn from if none does."""
    p, q = list(p), list(q)
    for child, x in children:
        if q[x] == 0:  # there was nothing left to draw
            continue
        if decide(child, min(1.0, p[x] / q[x])):
            return child, p
        rest = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
        p = [r / sum(rest) for r in rest] if sum(rest) > 0 else p
        q[x] = 0.0
        q = [b / sum(q) for b in q] if sum(q) > 0 else q
    return None, p


def orders(q: list[float], count: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every way to draw up to `count` tokens without replacement, and how likely it is."""
    left = sum(q)
    if not count or left == 0:
        yield 1.0, ()
        return
    for x, weight in enumerate(q):
        if weight > 0:
            for chance, others in orders([0.0 if y == x else w for y, w in enumerate(q)], count - 1):
                yield weight / left * chance, (x, *others)


def outcomes(p: list[float], q: list[float], children: list[int]) -> Iterator[tuple[float, int | None, int]]:
    """How likely it is that a child with a token stays, or, None, that a token is drawn after the last."""
    for chance, drawn in orders(q, len(children)):
        here = list(zip(children, drawn, strict=False))
        gone = chance
        for stays in [*range(len(here)), None]:
            chances: list[float] = []

            def decide(child: int, likely: float, stays: int | None = stays, chances: list[float] = chances) -> bool:
                chances.append(likely)
                return stays is not None and len(chances) == stays + 1

            child, rest = judged(p, q, here, decide)
            if child is not None:
                yield gone * chances[-1], child, drawn[stays or 0]
                gone *= 1 - chances[-1]
            else:
                for y, weight in enumerate(rest):
                    yield gone * weight, None, y


def prefix_number(prefix: tuple[int, ...], vocab: int) -> int:
    """Prefixes are numbered like a heap: 0 is the empty one."""
    number = 0
    for x in prefix:
        number = number * vocab + x + 1
    return number


def law(p: list[list[float]], q: list[list[float]], below: dict[int, list[int]], depth: int) -> dict[tuple[int, ...], float]:
    """The law of the first `depth` tokens of a round with a tree and what the target says after it; p and q by prefix."""
    vocab = len(p[0])
    reached: dict[tuple[int, tuple[int, ...]], float] = {(0, ()): 1.0}
    ended: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for _ in range(depth):
        further: defaultdict[tuple[int, tuple[int, ...]], float] = defaultdict(float)
        for (node, said), chance in reached.items():
            number = prefix_number(said, vocab)
            for likely, child, y in outcomes(p[number], q[number], below.get(node, [])):
                if child is None:
                    ended[(*said, y)] += chance * likely
                else:
                    further[child, (*said, y)] += chance * likely
        reached = further
    for (_, said), chance in reached.items():
        ended[said] += chance
    return whole(ended, p, depth)


def whole(ended: dict[tuple[int, ...], float], p: list[list[float]], depth: int) -> dict[tuple[int, ...], float]:
    """Texts of any length, each with its probability, gone on with by the target up to `depth` tokens."""
    for n in range(depth):
        for said in [said for said in ended if len(said) == n]:
            chance = ended.pop(said)
            for y, likely in enumerate(p[prefix_number(said, len(p[0]))]):
                ended[(*said, y)] = ended.get((*said, y), 0.0) + chance * likely
    return ended


def filled(q: list[list[float]], parents: tuple[int, ...], random: Random) -> tuple[list[int], list[int]]:
    """A tree of drafts drawn from q by prefix, and the number of the prefix of each node; children that a q has no token left for
    are tokens without probability."""
    vocab = len(q[0])
    said: list[tuple[int, ...]] = [()]
    taken: defaultdict[int, list[int]] = defaultdict(list)
    for parent in parents:
        left = [x for x in range(vocab) if x not in taken[parent]]
        weights = [q[prefix_number(said[parent], vocab)][x] for x in left]
        x = random.choices(left, weights)[0] if sum(weights) > 0 else (left or [0])[0]
        taken[parent].append(x)
        said.append((*said[parent], x))
    return [text[-1] for text in said[1:]], [prefix_number(text, vocab) for text in said]


@pytest.mark.slow
@pytest.mark.parametrize(("vocab", "parents", "cases"), GROUPS)
def test_output_is_the_targets_by_enumeration_and_the_rule_is_the_papers_in_10000_cases(
    vocab: int, parents: tuple[int, ...], cases: int
):
    assert sum(group[2] for group in GROUPS) >= 10_000
    depth = int(Tree(torch.tensor([parents])).depths.max())
    target, draft = random_models(len(parents) * vocab, cases, sum(vocab**d for d in range(depth + 1)), vocab)
    below: defaultdict[int, list[int]] = defaultdict(list)
    for child, parent in enumerate(parents, 1):
        below[parent].append(child)
    random = Random(vocab)
    trees = []
    for p, q in zip(target.tolist(), draft.tolist(), strict=True):
        found = law(p, q, below, depth)
        own = whole({(): 1.0}, p, depth)
        assert max(abs(found.get(text, 0.0) - own.get(text, 0.0)) for text in {*found, *own}) < 1e-6
        trees.append(filled(q, parents, random))
    tokens, numbers = (torch.tensor(part) for part in zip(*trees, strict=True))
    case = torch.arange(cases)[:, None]
    out = accept_candidates(
        target[case, numbers],
        draft[case, numbers],
        tokens,
        torch.tensor(parents).expand(cases, -1),
        torch.Generator().manual_seed(1),
    )
    again = torch.Generator().manual_seed(1)
    uniform = torch.rand(tokens.shape, generator=again, dtype=torch.float64).tolist()
    rests = []
    for n, (drafted, where) in enumerate(trees):
        node: int | None = 0
        path: list[int] = []
        while node is not None:
            at = where[node]
            children = [(child, drafted[child - 1]) for child in below[node]]
            node, rest = judged(
                target[n, at].tolist(), draft[n, at].tolist(), children, lambda child, likely, n=n: uniform[n][child - 1] < likely
            )
            path += [] if node is None else [node]
        assert out.nodes[n].tolist() == path + [0] * (len(parents) - len(path))
        assert out.num_accepted[n] == len(path)
        rests.append(rest)
    assert torch.equal(out.bonus_token, torch.multinomial(torch.tensor(rests, dtype=torch.float64), 1, generator=again).squeeze(1))
    assert 0 < out.num_accepted.count_nonzero() < cases


def test_with_one_child_a_node_it_is_token_rejection():
    cases, depth, vocab = 2000, 3, 4
    for dtype in (torch.float32, torch.float64):
        target, draft = (x.to(dtype) for x in random_models(5, cases, depth + 1, vocab))
        tokens = torch.multinomial(draft[:, :-1].flatten(0, 1), 1, generator=torch.Generator().manual_seed(2)).view(cases, depth)
        limit = torch.randint(depth + 1, (cases,), generator=torch.Generator().manual_seed(3))
        one = accept_sampled(target, draft[:, :-1], tokens, torch.Generator().manual_seed(4), limit)
        valid = torch.arange(depth) < limit[:, None]
        chain = torch.arange(depth).expand(cases, -1)
        out = accept_candidates(target, draft, tokens, chain, torch.Generator().manual_seed(4), valid)
        assert torch.equal(out.num_accepted, one.num_accepted) and torch.equal(out.bonus_token, one.bonus_token)
        assert torch.equal(out.nodes, torch.where(chain < out.num_accepted[:, None], chain + 1, 0))


def test_nodes_may_share_a_distribution_and_what_is_beyond_the_limit_changes_nothing_even_nan():
    cases, vocab = 500, 4
    parents = torch.tensor([0, 0, 1, 1, 2]).expand(cases, -1)
    target, draft = random_models(8, cases, 6, vocab)
    tokens = torch.stack([torch.rand(cases, vocab, generator=torch.Generator().manual_seed(n)).argsort(1) for n in range(3)], 1)
    tokens = torch.cat([tokens[:, 0, :2], tokens[:, 1, :2], tokens[:, 2, :1]], 1)
    shared = torch.tensor([0, 1, 1, 0, 0, 0])
    one = accept_candidates(target, draft[:, shared], tokens, parents, torch.Generator().manual_seed(0))
    two = accept_candidates(
        target, draft[:, :2], tokens, parents, torch.Generator().manual_seed(0), proposal_index=shared.expand(cases, -1)
    )
    assert all(map(torch.equal, one, two))
    valid = torch.tensor([True, True, False, False, False]).expand(cases, -1)
    short = accept_candidates(target, draft, tokens, parents, torch.Generator().manual_seed(0), valid)
    assert short.num_accepted.max() == 1 and (one.num_accepted > short.num_accepted).any()
    draft[:, 1:] = torch.nan
    target[:, 3:] = torch.nan
    again = accept_candidates(target, draft, tokens, parents, torch.Generator().manual_seed(0), valid)
    assert all(map(torch.equal, short, again))


def test_a_certain_target_is_followed_wherever_its_token_is_among_the_candidates():
    cases = 300
    want = torch.randint(5, (cases,), generator=torch.Generator().manual_seed(0))
    target = torch.nn.functional.one_hot(want, 5).float()[:, None].expand(-1, 4, -1)
    draft = torch.full((cases, 1, 5), 0.2)
    tokens = torch.rand(cases, 5, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :3]
    origins = torch.zeros(cases, 4, dtype=torch.long)
    out = accept_candidates(target, draft, tokens, torch.zeros_like(tokens), torch.Generator().manual_seed(2), None, origins)
    assert torch.equal(out.num_accepted > 0, (tokens == want[:, None]).any(1)) and torch.equal(out.bonus_token, want)
    kept = out.num_accepted > 0
    assert torch.equal(tokens[kept].gather(1, out.nodes[kept, :1] - 1).squeeze(1), want[kept])


@pytest.mark.slow
@pytest.mark.parametrize(("vocab", "cases"), [(50, 4000), (5000, 1000)])
def test_more_candidates_are_kept_more_often_and_float32_is_enough(vocab: int, cases: int):
    """One candidate stays with sum(min(p, q)); every other one adds to it, and the two precisions agree on nearly all."""
    g = torch.Generator().manual_seed(vocab)
    p, q = (apply_temperature_top_k_top_p(3 * torch.randn(vocab, generator=g), 0.9, 40).double() for _ in range(2))
    q = 0.5 * p + 0.5 * q
    p, q = (x / x.sum() for x in (p, q))
    tokens = torch.multinomial(q.expand(cases, -1), 4, generator=g)
    kept = []
    for count in (1, 2, 4):
        args = (
            p.expand(cases, 5, -1)[:, : count + 1],
            q.expand(cases, 1, -1),
            tokens[:, :count],
            torch.zeros_like(tokens[:, :count]),
        )
        origins = torch.zeros(cases, count + 1, dtype=torch.long)
        alike = [
            accept_candidates(*(x.to(dtype) for x in args[:2]), *args[2:], None, None, origins).num_accepted.double().mean()
            for dtype in DTYPES
        ]
        assert abs(alike[0] - alike[1]) < 0.05
        kept.append(float(alike[1]))
    overlap = float(torch.minimum(p, q).sum())
    assert abs(kept[0] - overlap) < 5 * (overlap * (1 - overlap) / cases) ** 0.5
    assert kept[0] + 0.03 < kept[1] < kept[2]


@pytest.mark.parametrize(
    ("target", "draft", "tokens", "parents"),
    [
        ((1, 2, 3), (1, 3, 3), (1, 2), (1, 2)),
        ((1, 3, 3), (1, 3, 4), (1, 2), (1, 2)),
        ((1, 3, 3), (1, 3, 3), (1, 2), (1, 1)),
        ((2, 3, 3), (1, 3, 3), (2, 2), (2, 2)),
    ],
)
def test_shapes_that_disagree_are_refused(
    target: tuple[int, ...], draft: tuple[int, ...], tokens: tuple[int, ...], parents: tuple[int, ...]
):
    whole_numbers = (torch.zeros(size, dtype=torch.long) for size in (tokens, parents))
    with pytest.raises(ValueError, match="shapes disagree"):
        accept_candidates(torch.ones(target), torch.ones(draft), *whole_numbers)


def test_without_drafts_the_target_is_drawn_from():
    target = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    none = torch.zeros(2, 0, dtype=torch.long)
    out = accept_candidates(target, torch.zeros(2, 0, 2), none, none)
    assert out.num_accepted.tolist() == [0, 0] and out.bonus_token.tolist() == [1, 0] and out.nodes.shape == (2, 0)
