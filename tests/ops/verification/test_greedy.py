"""Greedy verification accepts exactly the matching prefix."""

import itertools

import torch

from headway.ops.verification.greedy import accept_greedy


def test_exactly_the_matching_prefix_is_accepted_by_enumeration():
    own = torch.tensor([2, 0, 1, 2])
    target = torch.nn.functional.one_hot(own, 3).float()[None]
    for tokens in itertools.product(range(3), repeat=3):
        matching = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(tokens, own.tolist(), strict=False)))
        out = accept_greedy(target, torch.tensor([tokens]))
        assert out.num_accepted.item() == len(matching)
        assert out.bonus_token.item() == own[len(matching)]
