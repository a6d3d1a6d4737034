"""What comes out of a tree is the trunk's own, by enumeration; the tree is the likeliest there is, by enumeration."""

import itertools

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from headway.ops.draft_tree import Tree, build_top_paths_tree, follow_target, optimal_static_tree, parents_of

MEDUSA = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]


def test_ancestors_and_depths_of_a_known_tree():
    tree = Tree(torch.tensor([parents_of(MEDUSA)]))
    assert tree.parents.tolist() == [[0, 0, 1, 1, 2, 3]]
    assert tree.depths.tolist() == [[0, 1, 1, 2, 2, 2, 3]]
    ways = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 1, 3, 6]]
    assert [row.nonzero().flatten().tolist() for row in tree.ancestors[0]] == ways


@pytest.mark.parametrize("paths", [[()], [(0,), (0,)], [(0, 0), (0,)]])
def test_broken_paths_are_refused(paths):
    with pytest.raises(ValueError, match="is empty, appears twice, or comes before its parent"):
        parents_of(paths)


def plain_walk(parents, drafts, chosen, valid):
    """All paths from the root, tried one by one."""
    known = list(zip(parents, drafts, strict=True))
    valid = [a and known.index(pair) == n for n, (pair, a) in enumerate(zip(known, valid, strict=True))]
    best = []
    for end in range(len(drafts) + 1):
        path, node = [], end
        while node:
            path.insert(0, node)
            node = parents[node - 1]
        if all(valid[n - 1] and drafts[n - 1] == chosen[parents[n - 1]] for n in path) and len(path) > len(best):
            best = path
    return best, chosen[best[-1] if best else 0]


def test_the_path_is_the_one_found_by_trying_them_all_in_10000_cases():
    g = torch.Generator().manual_seed(0)
    for drafts in range(1, 11):
        parents = (torch.rand(1000, drafts, generator=g) * torch.arange(1, drafts + 1)).long()
        tokens = torch.randint(3, (1000, drafts), generator=g)
        chosen = torch.randint(3, (1000, drafts + 1), generator=g)
        valid = torch.rand(1000, drafts, generator=g) < 0.8
        path = follow_target(Tree(parents), tokens, chosen, valid)
        rows = zip(*(x.tolist() for x in (parents, tokens, chosen, valid, *path)), strict=True)
        for *case, nodes, kept, bonus_token in rows:
            assert (nodes[:kept], bonus_token) == plain_walk(*case)
            assert nodes[kept:] == [0] * (drafts - kept)


def test_what_comes_out_is_distributed_as_the_target_by_enumeration():
    """All choices of the trunk on a tree of depth 2, each with its probability: the two first tokens are its own."""
    g = torch.Generator().manual_seed(1)
    vocab = 3
    for _ in range(300):
        first = torch.rand(vocab, generator=g, dtype=torch.float64).softmax(0)
        second = torch.rand(vocab, vocab, generator=g, dtype=torch.float64).mul(3).softmax(1)  # after each first token
        parents = torch.tensor([0, 0, 1, 1, 2])
        drafts = torch.randint(vocab, (5,), generator=g)
        after = [first, second[drafts[0]], second[drafts[1]], *(first,) * 3]  # after depth 2: whatever
        found = torch.zeros(vocab, vocab, dtype=torch.float64)
        choices = torch.tensor(list(itertools.product(range(vocab), repeat=3)))
        chosen = torch.cat([choices, torch.zeros(len(choices), 3, dtype=torch.long)], 1)
        path = follow_target(Tree(parents.expand(len(choices), -1)), drafts.expand(len(choices), -1), chosen)
        for choice, nodes, kept, bonus_token in zip(choices.tolist(), *(x.tolist() for x in path), strict=True):
            likely = torch.stack([after[n][token] for n, token in enumerate(choice)]).prod()
            out = [int(drafts[n - 1]) for n in nodes[:kept]] + [bonus_token]
            if len(out) == 1:  # the second token is drawn in the next round
                found[out[0]] += likely * second[out[0]]
            else:
                found[out[0], out[1]] += likely
        torch.testing.assert_close(found, first[:, None] * second)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 30), st.integers(0, 10_000))
def test_the_tree_is_the_chain_and_then_the_likeliest_by_enumeration(depth, vocab, count, seed):
    log_probabilities = torch.randn(2, depth, vocab, generator=torch.Generator().manual_seed(seed)).log_softmax(2)
    paths = [p for d in range(1, depth + 1) for p in itertools.product(range(vocab), repeat=d)]
    grown = build_top_paths_tree(log_probabilities, count)
    for row in range(2):
        tokens, parents = grown.tokens[row].tolist(), grown.parents[row].tolist()
        assert all(parent <= n for n, parent in enumerate(parents))
        found = [()]
        for token, parent in zip(tokens, parents, strict=True):
            found.append((*found[parent], token))
        assert len(set(found)) == len(found) == min(count, len(paths)) + 1
        likely = {p: float(sum(log_probabilities[row, d, t] for d, t in enumerate(p))) for p in paths}
        top = tuple(log_probabilities[row].argmax(-1).tolist())
        chain = [top[:d] for d in range(1, depth + 1)][:count]
        assert found[1 : len(chain) + 1] == chain
        rest = sorted((chance for p, chance in likely.items() if p not in chain), reverse=True)[: count - len(chain)]
        assert [likely[p] for p in found[len(chain) + 1 :]] == pytest.approx(rest, abs=1e-5)
        smaller = build_top_paths_tree(log_probabilities[row : row + 1], max(1, count // 2))
        assert smaller.parents[0].tolist() == parents[: max(1, count // 2)]


def test_no_more_continuations_than_there_are():
    assert build_top_paths_tree(torch.zeros(1, 1, 2), 3).tokens.sort().values.tolist() == [[0, 1]]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.integers(2, 4), st.integers(2, 12), st.integers(1, 63), st.integers(0, 10_000))
def test_tokens_as_likely_as_each_other_make_a_tree_as_well(depth, vocab, count, seed):
    likely = torch.randint(0, 3, (3, depth, vocab), generator=torch.Generator().manual_seed(seed)).float().log_softmax(2)
    grown = build_top_paths_tree(likely, count)
    for row, (tokens, parents) in enumerate(zip(grown.tokens.tolist(), grown.parents.tolist(), strict=True)):
        assert all(parent <= n for n, parent in enumerate(parents))
        assert parents[:depth] == list(range(min(depth, count)))  # the chain first
        assert all(likely[row, d, t] == likely[row, d].max() for d, t in enumerate(tokens[:depth]))
        assert len(set(zip(parents, tokens, strict=True))) == len(tokens)


@hypothesis.given(st.integers(1, 5), st.integers(1, 63), st.integers(1, 9))
def test_optimal_static_tree_starts_with_a_chain_and_contains_every_smaller_tree(depth: int, count: int, width: int):
    parents = list(optimal_static_tree(depth, count, width))
    available = sum(width**d for d in range(1, depth + 1))
    assert len(parents) == min(count, available) and all(parent <= n for n, parent in enumerate(parents))
    assert parents[:depth] == list(range(depth))[:count]
    smaller = max(1, count // 2)
    assert list(optimal_static_tree(depth, smaller, width)) == parents[:smaller]
    children = [parents.count(node) for node in range(len(parents) + 1)]
    depths = Tree(torch.tensor([parents])).depths[0].tolist()
    assert max(children) == children[0] <= width and max(depths) <= depth


def test_optimal_static_tree_of_seven_drafts():
    """Acceptance by rank is 0.4, 0.1, 0.05, 0.033: after the chain come paths of 0.1, 0.05, 0.4 * 0.1, 0.1 * 0.4 and 0.033."""
    assert list(optimal_static_tree(2, 7, 50)) == parents_of([(0,), (0, 0), (1,), (2,), (0, 1), (1, 0), (3,)])
