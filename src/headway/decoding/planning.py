"""How many drafts a round should verify, from what rounds have cost and what was kept: drafting must never be slower than not.

A round over n drafts takes a time that is measured on this machine, model and batch; draft i adds to its tokens only if it is
kept, which is counted. The budget with the most tokens a second wins; none at all is one of the choices. Draft i of a
larger budget is also draft i of a smaller one, so that each round teaches something about all smaller budgets.
"""

from collections import defaultdict, deque
from collections.abc import Sequence

PRIOR, WEIGHT = 0.7, 2.0  # how often the first draft is thought to stay, and how many rounds that counts for
PROBING = 0.01  # share of the time that may be spent on rounds that are not thought the best
MARGIN = 0.05  # how much better than none drafts must look: they also have to read what they missed, which is not timed
TRIAL = 3  # rounds, of which the first is not timed where its drafter has to catch up
RECENT = 5  # rounds that a cost is taken from
MEMORY = 0.97  # weight that what a row kept still has after another row


class Planner:
    """Chooses among budgets of drafts; one for each pair of model and drafter, kept from call to call.

    Args:
        budgets: numbers of drafts to choose from, ascending, 0 first.
    """

    def __init__(self, budgets: Sequence[int]) -> None:
        self.budgets = tuple(budgets)
        self._seconds: defaultdict[tuple[int, int], deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._kept = [0.0] * self.budgets[-1]
        self._seen = [0.0] * self.budgets[-1]
        self._saved = 0.0  # seconds that may be lost on a trial
        self._last = 0
        self._trial: tuple[int, int] | None = None  # a budget, and how many rounds it has to go
        self._worth: float | None = None  # seconds that the best budget takes for the tokens of the one on trial
        self._turn = 0

    def choose(self, rows: int, most: int) -> int:
        """A budget for a round of `rows` rows, none of which can use more than `most` drafts."""
        group = rows.bit_length()
        within = [n for n in self.budgets if n <= most]
        if self._trial is not None:
            budget, left = self._trial
            self._trial = (budget, left - 1) if left > 1 else None
            if budget in within:
                return budget
        self._worth = None
        tried = {n for g, n in self._seconds if g == group}
        # a straight line takes two points; and never further than one step beyond what was tried
        if (missing := next((n for n in (*within[1:2], 0) if n not in tried), None)) is not None:
            return self._try(missing)
        reach = within[: 2 + max(i for i, n in enumerate(within) if n in tried)]
        curve = self.curve(group)
        rate = {n: self.tokens(n) / seconds(curve, n) for n in reach}
        best = max(reach, key=lambda n: rate[n] * (1 - MARGIN * (n > 0)))
        at = reach.index(best)
        others = [n for n in sorted({0, *reach[max(0, at - 1) : at + 3]}) if n != best]
        if others:
            other = others[self._turn % len(others)]
            if self._saved >= TRIAL * (seconds(curve, other) - self.tokens(other) / rate[best]):
                self._turn += 1
                self._worth = self.tokens(other) / rate[best]
                return self._try(other)
        return best if best in tried else self._try(best)

    def learn(self, rows: int, drafts: int, kept: Sequence[Sequence[int]], took: float) -> None:
        """A round over so many rows and drafts a row took so many seconds; which drafts of some of those rows stayed, from 1."""
        budget = next(n for n in self.budgets if n >= drafts)
        # the first round with more drafts than the one before it also pays for what its drafter missed
        if budget <= self._last:
            self._seconds[rows.bit_length(), budget].append(took)
        self._last = budget
        self._saved += PROBING * took
        if self._worth is not None:
            self._saved -= took - self._worth
        memory = MEMORY ** len(kept)
        for i in range(drafts):
            self._seen[i] = memory * self._seen[i] + len(kept)
            self._kept[i] *= memory
        for node in (node for nodes in kept for node in nodes):
            self._kept[node - 1] += 1

    def tokens(self, budget: int) -> float:
        """Tokens that a row should get from a round. A draft seldom tried is thought to be about as good as the one before it."""
        total = 1.0
        share = PRIOR
        for kept, seen in zip(self._kept[:budget], self._seen[:budget], strict=True):
            share = (kept + WEIGHT * share) / (seen + WEIGHT)
            total += share
        return total

    def curve(self, group: int) -> list[tuple[int, float]]:
        """Budgets that were tried with about so many rows, and what a round took, in seconds."""
        # what disturbs a timing makes it longer: the second shortest of five
        return sorted((n, sorted(times)[len(times) // 4]) for (g, n), times in self._seconds.items() if g == group)

    def _try(self, budget: int) -> int:
        self._trial = (budget, TRIAL - 1)
        return budget


def seconds(curve: Sequence[tuple[int, float]], budget: int) -> float:
    """What a round should take: along a straight line between budgets that were tried, and at best no more beyond them."""
    n0, t0 = max((pair for pair in curve if pair[0] <= budget), default=curve[0])
    n1, t1 = min((pair for pair in curve if pair[0] >= budget), default=curve[-1])
    return t0 if n0 >= n1 else t0 + (t1 - t0) * (budget - n0) / (n1 - n0)
