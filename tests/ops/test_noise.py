"""Noise is standard Gumbel, the same at the same place, and independent everywhere else."""

import torch
from scipy import stats

from headway.ops.noise import _STEP, _mix, document_seeds, folded, gumbel, uniform


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


def seeds_of(*documents, seed=0):
    tokens = torch.tensor([token for document in documents for token in document])[None]
    positions = torch.tensor([place for document in documents for place in range(len(document))])[None]
    segments = torch.tensor([number for number, document in enumerate(documents) for _ in document])[None]
    found = document_seeds(tokens, positions, segments, seed)[0].tolist()
    starts = [sum(map(len, documents[:number])) for number in range(len(documents))]
    assert all(len(set(found[start : start + len(d)])) == 1 for start, d in zip(starts, documents, strict=True))
    return [found[start] for start in starts]


def test_a_document_has_one_number_wherever_it_stands_and_others_have_others():
    first, second = seeds_of([5, 6, 7], [6, 5, 7])
    assert first != second  # the order counts
    assert seeds_of([9], [6, 5, 7], [5, 6, 7])[1:] == [second, first]
    assert seeds_of([5, 6, 7], seed=1) != [first]
    assert len({*seeds_of([5, 6, 7], seed=2**62), *seeds_of([5, 6, 7], seed=2**70 + 3)}) == 2
    many = [number for seed in range(50) for number in seeds_of(*([a, b] for a in range(6) for b in range(6)), seed=seed)]
    assert len(set(many)) == len(many)


def test_uniform_numbers_are_uniform_and_uncorrelated_between_neighbours():
    found = uniform(torch.arange(100)[:, None], torch.arange(100)).double()
    assert found.min() >= 0 and found.max() < 1
    assert stats.kstest(found.flatten().numpy(), "uniform").pvalue > 1e-3
    for a, b in [(found[1:], found[:-1]), (found[:, 1:], found[:, :-1])]:
        assert stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).pvalue > 1e-3


def test_noise_is_finite_where_bits_round_up_to_one_and_unchanged_elsewhere():
    noise = gumbel(torch.tensor([18]), torch.tensor([[7]]), 2**20)
    assert torch.isfinite(noise).all()
    bits = _mix(_mix(18 + torch.tensor(7) * _STEP) + torch.arange(1, 2**20 + 1) * _STEP) & (2**63 - 1)
    plain = -torch.log(-torch.log1p(-(bits.float() * 2.0**-63)))
    assert (plain != noise[0, 0]).nonzero().flatten().tolist() == [880217]
    only = torch.full((2**20,), -torch.inf)
    only[880217] = 0.0
    assert (only + noise[0, 0]).argmax() == 880217


def test_numbers_of_any_size_fold_into_int64_and_those_that_fit_stay():
    assert [folded(n) for n in (0, -5, 2**63 - 1, -(2**63))] == [0, -5, 2**63 - 1, -(2**63)]
    assert all(-(2**63) <= folded(n) < 2**63 for n in (2**63, 2**64, 10**30, -(10**30)))
