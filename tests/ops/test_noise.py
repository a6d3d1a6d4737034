"""Noise is standard Gumbel, the same at the same place, and independent everywhere else."""

import torch
from scipy import stats

from headway.ops.noise import _mix, gumbel


def splitmix64(state):
    """The published reference, in Python's integers."""
    mask = (1 << 64) - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


def test_bits_are_those_of_splitmix64():
    values = [0, 1, -1, 2**62 + 12345, -(2**61) - 7]
    found = _mix(torch.tensor(values)).tolist()
    assert [x & (1 << 64) - 1 for x in found] == [splitmix64(x & (1 << 64) - 1) for x in values]


def test_noise_is_standard_gumbel_and_uncorrelated():
    noise = gumbel(torch.tensor([3, 4]), torch.arange(50).expand(2, -1), 400).double()
    assert stats.kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 1e-3
    for a, b in [(noise[0], noise[1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])]:
        assert stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).pvalue > 1e-3


def test_a_place_has_its_own_noise_whatever_is_asked_for_beside_it():
    whole = gumbel(torch.tensor([7, 8]), torch.tensor([[1, 2, 3], [5, 6, 7]]), 30)
    assert torch.equal(gumbel(torch.tensor([8]), torch.tensor([[6]]), 20)[0, 0], whole[1, 1, :20])


def test_the_likeliest_after_noise_has_the_distribution_it_should():
    p = torch.tensor([0.5, 0.3, 0.15, 0.049, 0.001])
    drawn = (p.log() + gumbel(torch.arange(200), torch.arange(500).expand(200, -1), 5)).argmax(-1)
    counts = torch.bincount(drawn.flatten(), minlength=5)
    assert stats.chisquare(counts.numpy(), (p.double() / p.double().sum() * 100_000).numpy()).pvalue > 1e-3
