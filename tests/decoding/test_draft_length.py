"""The planner against a made-up machine whose costs and luck are known, and so its best choice."""

import random

import pytest

from headway.decoding.draft_length import DraftLengthController

CHAIN = (0, 1, 2, 3, 4)
TREE = (0, 1, 2, 3, 4, 8, 16, 32, 64)
MEMORY_BOUND = {n: 1.0 + 0.3 * (n > 0) + 0.002 * n for n in TREE}
COMPUTE_BOUND = {n: 1.0 + n for n in TREE}


class Machine:
    """Draft i stays with probability `chance` if the one before it did; a round over n drafts takes cost[n], with noise."""

    def __init__(self, draft_sizes, cost, chance, noise=0.0, rows=1, seed=0):
        self.controller, self.cost, self.chance, self.noise, self.rows = (
            DraftLengthController(draft_sizes),
            cost,
            chance,
            noise,
            rows,
        )
        self.random = random.Random(seed)
        self.clock = self.tokens = 0.0
        self.chosen = []

    def run(self, rounds, most=None):
        for _ in range(rounds):
            most = self.controller.draft_sizes[-1] if most is None else most
            n = 0 if self.controller.can_skip(self.rows) else self.controller.choose_draft_length(self.rows, most)
            kept = []
            for _ in range(self.rows):
                count = 0
                while count < n and self.random.random() < self.chance:
                    count += 1
                kept.append(range(1, count + 1))
            seconds = self.cost[n] * (1 + self.noise * self.random.random() ** 4)
            self.controller.record_step(self.rows, n, kept, seconds)
            self.chosen.append(n)
            self.clock += seconds
            self.tokens += sum(len(k) + 1 for k in kept)

    def rate(self):
        return self.tokens / self.clock / self.rows


def best_rate(draft_sizes, cost, chance):
    return max((1 + sum(chance**i for i in range(1, n + 1))) / cost[n] for n in draft_sizes)


@pytest.mark.parametrize("draft_sizes", [CHAIN, TREE])
@pytest.mark.parametrize("cost", [MEMORY_BOUND, COMPUTE_BOUND])
@pytest.mark.parametrize("chance", [0.0, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_it_comes_close_to_the_best_that_can_be_had(draft_sizes, cost, chance, noise):
    machine = Machine(draft_sizes, cost, chance, noise)
    machine.run(600)
    noisy = 1 + noise / 5  # the mean of what the noise adds
    assert machine.rate() * noisy > 0.9 * best_rate(draft_sizes, cost, chance)


@pytest.mark.parametrize("cost", [MEMORY_BOUND, COMPUTE_BOUND])
def test_useless_drafts_cost_at_most_three_percent(cost):
    machine = Machine(TREE, cost, 0.0)
    machine.run(300)
    assert machine.rate() > 0.97


def test_it_comes_back_to_drafting_when_drafts_become_good():
    machine = Machine(CHAIN, MEMORY_BOUND, 0.0)
    machine.run(300)
    assert machine.chosen[-50:].count(0) >= 44
    machine.chance = 0.9
    machine.run(400)
    assert sum(n >= 3 for n in machine.chosen[-100:]) > 85


def test_it_leaves_off_when_drafts_become_bad():
    machine = Machine(CHAIN, MEMORY_BOUND, 0.9)
    machine.run(200)
    machine.chance = 0.0
    machine.run(200)
    assert machine.chosen[-100:].count(0) > 90


def test_a_disturbance_of_plain_rounds_is_not_believed_for_long():
    machine = Machine(CHAIN, COMPUTE_BOUND | {0: 5.0}, 0.6)
    machine.run(20)
    assert machine.chosen[-1]  # while it lasts drafts pay
    machine.cost = COMPUTE_BOUND
    machine.run(60)
    assert machine.chosen[-20:].count(0) >= 18


def test_another_batch_size_is_judged_by_its_own_costs():
    machine = Machine(CHAIN, MEMORY_BOUND, 0.7)
    machine.run(100)
    machine.rows, machine.cost = 16, COMPUTE_BOUND
    machine.run(200)
    assert machine.chosen[-50:].count(0) >= 45
    machine.rows, machine.cost = 1, MEMORY_BOUND
    machine.run(5)
    assert sum(n >= 2 for n in machine.chosen[-5:]) >= 4  # one may be a trial


def test_it_never_asks_for_more_than_can_be_used():
    machine = Machine(CHAIN, MEMORY_BOUND, 0.9)
    machine.run(50)
    machine.run(50, most=2)
    assert max(machine.chosen[-50:]) == 2
    machine.run(3, most=0)
    assert machine.chosen[-3:] == [0, 0, 0]
