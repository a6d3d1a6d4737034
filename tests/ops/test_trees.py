"""Whatever the tree, what comes out is distributed as the target: by enumeration of all drafts, chosen or drawn."""

import itertools

import pytest
import torch
from torch import Tensor

from headway.ops.acceptance import accept_greedy, accept_sampled
from headway.ops.trees import Path, Tree, TreeLaw, accept_tree_greedy, accept_tree_sampled, tree_law
from tests.ops.test_block_verification import all_drafts, output_law, random_models, token_law

MEDUSA = [(0,), (0, 0), (1,), (0, 1), (2,), (0, 0, 0), (1, 0), (0, 2), (0, 0, 1), (1, 0, 0)]
SIZES = [(2, 2), (2, 4), (2, 6), (3, 2), (3, 3), (3, 4), (3, 5), (4, 3), (4, 4), (5, 3), (5, 4)]  # vocab, nodes


def random_parents(g: torch.Generator, cases: int, nodes: int) -> Tensor:
    below = torch.arange(nodes)
    return (torch.rand(cases, nodes, generator=g) * below).long().clamp(max=below - 1)


def random_alive(g: torch.Generator, cases: int, nodes: int) -> Tensor:
    """Half of the cases have all nodes; the root's own flag is noise, as it must not count."""
    return (torch.rand(cases, nodes, generator=g) < 0.7) | (torch.arange(cases) % 2 == 0)[:, None]


def prefixes(parents: Tensor, tokens: Tensor, vocab: int) -> Tensor:
    """The number of the prefix that each node stands for, (rows, nodes)."""
    prefix = torch.zeros_like(tokens)
    for node in range(1, tokens.shape[1]):
        parent = prefix.gather(1, parents[:, node, None]).squeeze(1)
        prefix[:, node] = parent * vocab + tokens[:, node] + 1
    return prefix


def rows_of(models: Tensor, prefix: Tensor) -> Tensor:
    """Each node's distribution; (cases, prefixes, vocab), (rows, nodes) -> (rows, nodes, vocab)."""
    case = torch.arange(len(prefix)) // (len(prefix) // len(models))
    return models[case[:, None], prefix]


def likelihood(q: Tensor, tokens: Tensor, parents: Tensor, alive: Tensor) -> Tensor:
    """How likely the drafts are when siblings are drawn without replacement; (rows,).

    A node that is not drawn, because it is not alive or nothing is left to draw, is token 0.
    """
    likely = torch.ones(len(tokens), dtype=q.dtype)
    for node in range(1, tokens.shape[1]):
        left = q.gather(1, parents[:, node, None, None].expand(-1, 1, q.shape[2])).squeeze(1)
        for elder in range(1, node):
            drawn = (parents[:, elder] == parents[:, node]) & alive[:, elder]
            left = left.scatter(1, tokens[:, elder, None], torch.where(drawn[:, None], 0, left.gather(1, tokens[:, elder, None])))
        mass, own = left.sum(1), left.gather(1, tokens[:, node, None]).squeeze(1)
        likely *= torch.where(alive[:, node] & (mass > 0), own / mass, (tokens[:, node] == 0).double())
    return likely


def assert_law_is_the_targets(law: TreeLaw, likely: Tensor, prefix: Tensor, target: Tensor, depth: int) -> None:
    cases, vocab = len(target), target.shape[2]
    torch.testing.assert_close(law.ends.sum(1), torch.ones_like(likely))
    torch.testing.assert_close(law.following.sum(2), torch.ones_like(law.ends))
    assert (law.ends >= 0).all() and (law.following >= 0).all()
    made = (likely[:, None] * law.ends)[..., None] * law.following  # (rows, nodes, vocab)
    index = prefix.view(cases, -1, 1).expand(-1, -1, vocab)
    mass = torch.zeros_like(target).scatter_add(1, index, made.view(cases, -1, vocab))
    torch.testing.assert_close(*output_law(target, mass, depth), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("vocab", "nodes"), SIZES)
def test_drafts_drawn_without_replacement_leave_the_target_as_it_is(vocab: int, nodes: int):
    cases, g = 500, torch.Generator().manual_seed(nodes)
    target, draft = random_models(vocab, cases, vocab, nodes - 1)
    drafts = torch.tensor(list(itertools.product(range(vocab), repeat=nodes - 1)))
    tokens = torch.cat([torch.zeros_like(drafts[:, :1]), drafts], 1).repeat(cases, 1)  # (rows, nodes)
    of_row = [random_parents(g, cases, nodes), random_alive(g, cases, nodes)]
    parents, alive = (values.repeat_interleave(len(drafts), 0) for values in of_row)
    prefix = prefixes(parents, tokens, vocab)
    p, q = rows_of(target, prefix), rows_of(draft, prefix)
    likely = likelihood(q, tokens, parents, alive)
    torch.testing.assert_close(likely.view(cases, -1).sum(1), torch.ones(cases, dtype=torch.float64))
    assert_law_is_the_targets(tree_law(p, q, tokens, parents, alive), likely, prefix, target, nodes - 1)


@pytest.mark.parametrize("twins", [False, True])
@pytest.mark.parametrize(("vocab", "nodes"), SIZES)
def test_drafts_chosen_by_any_rule_leave_the_target_as_it_is(vocab: int, nodes: int, twins: bool):
    cases, g = 500, torch.Generator().manual_seed(nodes)
    target, draft = random_models(10 * vocab, cases, vocab, nodes - 1)
    parents, alive = random_parents(g, cases, nodes), random_alive(g, cases, nodes)
    likeliest = draft.argsort(-1, descending=True)
    tokens = torch.randint(vocab, (cases, nodes), generator=g)
    if not twins:  # the top k of a head; where there are more siblings than tokens, they start again
        ranks = Tree(parents).ranks
        for node in range(1, nodes):
            prefix = prefixes(parents, tokens, vocab).gather(1, parents[:, node, None]).squeeze(1)
            tokens[:, node] = likeliest[torch.arange(cases), prefix, ranks[:, node] % vocab]
    prefix = prefixes(parents, tokens, vocab)
    law = tree_law(rows_of(target, prefix), None, tokens, parents, alive)
    assert_law_is_the_targets(law, torch.ones(cases, dtype=torch.float64), prefix, target, nodes - 1)


@pytest.mark.parametrize(("vocab", "depth"), [(2, 1), (2, 3), (3, 2), (4, 2), (5, 2)])
def test_a_chain_has_the_law_of_token_level_rejection(vocab: int, depth: int):
    target, draft = random_models(depth, 200, vocab, depth)
    p, q, tokens, _, likely = all_drafts(target, draft, depth)
    drawn = likely.flatten() > 0
    p, q, tokens = p[drawn], q[drawn], tokens[drawn]
    limit = torch.randint(depth + 1, (len(tokens),), generator=torch.Generator().manual_seed(0))
    expected = token_law(p, q, tokens, limit)
    nodes = torch.cat([torch.full_like(tokens[:, :1], vocab - 1), tokens], 1)
    proposal = torch.cat([q, torch.full_like(q[:, :1], torch.nan)], 1)  # the last node has no children
    alive = torch.arange(depth + 1) <= limit[:, None]
    law = tree_law(p, proposal, nodes, Tree.chain(depth), alive)
    torch.testing.assert_close(law.ends, expected.kept)
    ends = expected.kept > 1e-9
    torch.testing.assert_close(law.following[ends], expected.following[ends])


def test_a_chain_draws_as_accept_sampled_does():
    target, draft = random_models(5, 4, 3, 2)
    g, count = torch.Generator().manual_seed(0), 20_000
    for case in range(4):
        p, q, tokens, _, likely = all_drafts(target[case : case + 1], draft[case : case + 1], 2)
        p, q, tokens = (x[int(likely.argmax())].expand(count, *x.shape[1:]) for x in (p, q, tokens))
        chain = accept_sampled(p, q, tokens, g)
        nodes, proposal = torch.cat([tokens[:, :1], tokens], 1), torch.cat([q, q[:, :1]], 1)
        tree = accept_tree_sampled(p, proposal, nodes, Tree.chain(2), g)
        one, other = (torch.bincount(out.kept * 3 + out.following, minlength=9) / count for out in (chain, tree))
        assert ((one - other).abs() <= 5 * (2 * one * (1 - one) / count).sqrt() + 5 / count).all()


def test_a_chain_is_as_greedy_as_accept_greedy():
    g = torch.Generator().manual_seed(0)
    target, tokens = torch.randn(500, 5, 2, generator=g), torch.randint(2, (500, 4), generator=g)
    limit = torch.randint(5, (500,), generator=g)
    chain = accept_greedy(target, tokens, limit)
    nodes = torch.cat([tokens[:, :1], tokens], 1)
    tree = accept_tree_greedy(target, nodes, Tree.chain(4).parents, torch.arange(5) <= limit[:, None])
    assert torch.equal(tree.kept, chain.kept) and torch.equal(tree.following, chain.following)
    assert torch.equal(tree.nodes, torch.minimum(torch.arange(5), chain.kept[:, None]))


def walk(target: Tensor, tokens: list[int], parents: list[int], alive: list[bool]) -> tuple[list[int], int]:
    own, path = target.argmax(-1).tolist(), [0]
    while True:
        children = [c for c in range(len(tokens)) if parents[c] == path[-1] and alive[c] and tokens[c] == own[path[-1]]]
        if not children:
            return path, own[path[-1]]
        path.append(children[0])


def test_greedy_equals_a_plain_walk_from_the_root():
    g = torch.Generator().manual_seed(0)
    for nodes, vocab in [(1, 2), (4, 4), (9, 9), (30, 30)]:
        parents, alive = random_parents(g, 200, nodes), random_alive(g, 200, nodes)
        tokens = torch.rand(200, nodes, vocab, generator=g).argsort(-1)  # siblings differ
        tokens = tokens[torch.arange(200)[:, None], parents.clamp(min=0), Tree(parents).ranks]
        target = torch.randn(200, nodes, vocab, generator=g)
        child = torch.randint(nodes, (200, nodes), generator=g)  # the trunk often agrees with one of the drafts
        target.scatter_add_(2, tokens.gather(1, child)[..., None], torch.full((200, nodes, 1), 3.0))
        target.scatter_add_(
            1,
            parents.clamp(min=0)[..., None].expand(-1, -1, vocab),
            torch.nn.functional.one_hot(tokens, vocab).float() * (torch.rand(200, nodes, 1, generator=g) < 0.6) * 5,
        )
        out = accept_tree_greedy(target, tokens, parents, alive)
        for row in range(200):
            path, following = walk(target[row], tokens[row].tolist(), parents[row].tolist(), alive[row].tolist())
            padded = path + [path[-1]] * (out.nodes.shape[1] - len(path))
            assert out.nodes[row].tolist() == padded
            assert out.kept[row] == len(path) - 1 and out.following[row] == following
        assert nodes == 1 or out.kept.max() > 1


def test_of_two_siblings_with_one_token_greedy_follows_the_one_that_goes_further():
    target = torch.nn.functional.one_hot(torch.tensor([[1, 0, 2, 2]]), 3).float()
    out = accept_tree_greedy(target, torch.tensor([[0, 1, 1, 2]]), torch.tensor([-1, 0, 0, 2]))
    assert out.nodes.tolist() == [[0, 2, 3]] and out.kept.tolist() == [2] and out.following.tolist() == [2]


@pytest.mark.parametrize("drawn", [False, True])
def test_the_public_rule_draws_from_its_law_and_returns_the_path_to_where_it_ends(drawn: bool):
    tree, count, g = Tree.from_paths(MEDUSA), 20_000, torch.Generator().manual_seed(0)
    nodes = len(MEDUSA) + 1
    p, q = (torch.softmax(torch.randn(1, nodes, 5, generator=g, dtype=torch.float64), -1) for _ in range(2))
    tokens = torch.cat([torch.zeros(1, 1, dtype=torch.long), tree.ranks[None, 1:]], 1)
    proposal = q if drawn else None
    law = tree_law(p, proposal, tokens, tree)
    spread = [None if x is None else x.expand(count, *x.shape[1:]) for x in (p, proposal, tokens)]
    out = accept_tree_sampled(*spread, tree.parents, g)
    assert isinstance(out, Path) and out.nodes.shape == (count, 4)
    assert (out.nodes[:, 0] == 0).all() and torch.equal(out.kept, tree.depths[out.nodes[:, -1]])
    below, above = out.nodes[:, 1:], out.nodes[:, :-1]
    assert torch.equal(tree.parents[below] == above, torch.arange(3) < out.kept[:, None])
    assert (below == above)[torch.arange(3) >= out.kept[:, None]].all()
    joint = (law.ends[0, :, None] * law.following[0]).flatten()
    share = torch.bincount(out.nodes[:, -1] * 5 + out.following, minlength=5 * nodes) / count
    assert ((share - joint).abs() <= 5 * (joint * (1 - joint) / count).sqrt() + 1e-12).all()


@pytest.mark.parametrize("drawn", [False, True])
def test_a_node_that_is_not_there_and_all_below_it_change_nothing_even_where_they_are_nan(drawn: bool):
    tree, g = Tree.from_paths(MEDUSA), torch.Generator().manual_seed(0)
    nodes = len(MEDUSA) + 1
    p, q = (torch.softmax(torch.randn(3, nodes, 5, generator=g), -1) for _ in range(2))
    tokens = tree.ranks.expand(3, -1).clone()
    alive = ~tree.ancestors[:, 1].expand(3, -1)  # all but the root's first child and what follows it
    p[~alive], q[~alive] = torch.nan, torch.nan
    first_gone = torch.arange(nodes) != 1  # naming the head of the broken branch is enough
    law = tree_law(p, q if drawn else None, tokens, tree, first_gone.expand(3, -1))
    assert (law.ends[~alive] == 0).all()
    torch.testing.assert_close(law.ends.sum(1), torch.ones(3))
    out = accept_tree_sampled(p, q if drawn else None, tokens, tree, g, first_gone.expand(3, -1))
    assert alive.gather(1, out.nodes).all()


def test_further_candidates_are_tried_only_when_the_first_is_rejected():
    target, proposal = torch.tensor([[[0.5, 0.3, 0.2]]]), torch.tensor([[[0.8, 0.1, 0.1]]])
    law = tree_law(target.expand(1, 3, 3), proposal.expand(1, 3, 3), torch.tensor([[2, 0, 1]]), torch.tensor([-1, 0, 0]))
    # 0 stays with 5/8; then p = (0, 2/3, 1/3) and q = (0, 1/2, 1/2): 1 stays for certain
    torch.testing.assert_close(law.ends, torch.tensor([[0, 5 / 8, 3 / 8]]))
    law = tree_law(target.expand(1, 3, 3), None, torch.tensor([[2, 0, 1]]), torch.tensor([-1, 0, 0]))
    torch.testing.assert_close(law.ends, torch.tensor([[0.2, 0.5, 0.3]]))
    torch.testing.assert_close(law.following[0, 0], torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("drawn", [False, True])
def test_float32_of_a_large_vocabulary_stays_close_to_float64(drawn: bool):
    tree, g = Tree.from_paths(MEDUSA), torch.Generator().manual_seed(0)
    nodes = len(MEDUSA) + 1
    p, q = (torch.softmax(4 * torch.randn(4, nodes, 5000, generator=g, dtype=torch.float64), -1) for _ in range(2))
    q = 0.9 * p + 0.1 * q
    candidates = torch.multinomial(q.flatten(0, 1), tree.width, generator=g).view(4, nodes, -1)
    tokens = candidates[:, tree.parents.clamp(min=0), tree.ranks]
    exact = tree_law(p, q if drawn else None, tokens, tree)
    rough = tree_law(p.float(), q.float() if drawn else None, tokens, tree)
    torch.testing.assert_close(rough.ends.double(), exact.ends, rtol=0, atol=1e-5)
    torch.testing.assert_close(rough.following.double(), exact.following, rtol=0, atol=1e-5)


def test_a_tree_from_paths_numbers_its_nodes_by_depth_and_then_by_path():
    tree = Tree.from_paths([[1], [0, 1], [0], [1, 0], [0, 0]])
    assert tree.parents.tolist() == [-1, 0, 0, 1, 1, 2]
    assert tree.depths.tolist() == [0, 1, 1, 2, 2, 2]
    assert tree.ranks.tolist() == [0, 0, 1, 0, 1, 0]
    assert tree.children.tolist() == [[1, 2], [3, 4], [5, -1], [-1, -1], [-1, -1], [-1, -1]]
    assert tree.width == 2 and tree.max_depth == 2
    assert Tree.from_paths([]).parents.tolist() == Tree.chain(0).parents.tolist() == [-1]


def test_ancestors_and_depths_equal_a_climb_from_every_node():
    parents = random_parents(torch.Generator().manual_seed(0), 50, 12)
    parents[0] = Tree.chain(11).parents
    for tree in Tree(parents), Tree(parents[1]):
        shaped = tree.parents.view(-1, 12)
        for row, (seen, depths) in enumerate(zip(tree.ancestors.view(-1, 12, 12), tree.depths.view(-1, 12), strict=True)):
            for node in range(12):
                way, at = set(), node
                while at >= 0:
                    way.add(at)
                    at = int(shaped[row, at])
                assert set(seen[node].nonzero().flatten().tolist()) == way
                assert depths[node] == len(way) - 1


@pytest.mark.parametrize(
    "parents",
    [[], [0], [-1, -1], [-1, 1], [-1, 0, 3, 0], [-1, 0, -2], [[-1, 0], [-1, 1]], [[[-1, 0]]]],
)
def test_broken_trees_are_refused(parents: list):
    with pytest.raises(ValueError, match="parents"):
        Tree(torch.tensor(parents, dtype=torch.long))


def test_parents_that_are_not_integers_are_refused():
    with pytest.raises(ValueError, match="int64"):
        Tree(torch.tensor([-1.0, 0.0]))


@pytest.mark.parametrize(
    ("paths", "reason"),
    [([(0,), (0,)], "twice"), ([()], "empty"), ([(0, 0)], "no parent"), ([(0,), (2,)], "elder"), ([(-1,)], "elder")],
)
def test_broken_paths_are_refused(paths: list, reason: str):
    with pytest.raises(ValueError, match=reason):
        Tree.from_paths(paths)


def test_a_chain_of_negative_depth_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Tree.chain(-1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": torch.ones(2, 4, 5)},
        {"target": torch.ones(3, 3, 5)},
        {"proposal": torch.ones(2, 3, 4)},
        {"parents": torch.tensor([-1, 0])},
        {"parents": torch.tensor([[-1, 0, 0]])},
        {"alive": torch.ones(2, 2, dtype=torch.bool)},
    ],
)
def test_shapes_that_disagree_are_refused(wrong: dict[str, Tensor]):
    fine = {
        "target": torch.ones(2, 3, 5),
        "proposal": torch.ones(2, 3, 5),
        "tokens": torch.zeros(2, 3, dtype=torch.long),
        "parents": torch.tensor([-1, 0, 0]),
        "alive": torch.ones(2, 3, dtype=torch.bool),
    }
    accept_tree_sampled(**fine)
    with pytest.raises(ValueError, match="shapes disagree"):
        accept_tree_sampled(**(fine | wrong))
    if "proposal" not in wrong:
        arguments = {name: value for name, value in (fine | wrong).items() if name != "proposal"}
        with pytest.raises(ValueError, match="shapes disagree"):
            accept_tree_greedy(**arguments)
