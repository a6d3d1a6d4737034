"""How many drafts a round should verify, from what rounds have cost and what was kept: drafting must never be slower than not.

A round over n drafts takes a time that is measured on this machine, model and batch; draft i adds to its tokens only if it is
kept, which is counted. The budget with the most tokens a second wins; none at all is one of the choices. Draft i of a
larger budget is also draft i of a smaller one, so that each round teaches something about all smaller budgets. What a drafter
must read first, where it has not drafted for a while, is measured apart and weighed against the rounds that are to come.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

PRIOR, WEIGHT = 0.7, 2.0  # how often the first draft is thought to stay, and how many rounds that counts for
PROBING = 0.005  # share of the time that may be spent on rounds that are not thought the best
AT_LEAST = 0.25  # share of its time that a trial in place of plain decoding is taken to lose, however good it looks
MARGIN = 0.05  # how much better than none drafts must look
TRIAL = 2  # rounds, and one more where its drafter has to catch up
PLAIN_TRIAL = 6  # rounds without drafts at first
# after how many rounds with drafts two are timed without, at first and at most: what made drafts look better may have been a
# disturbance that made rounds without them look slow
PLAIN_FIRST, PLAIN_LAST = 16, 128
RESTING = 16  # rounds without drafts at most before it is asked again whether one more should have some
RECENT = 5  # rounds that a cost is taken from
MEMORY = 0.97  # weight that what a row kept still has after another row
CATCHING_UP = 0.8  # weight that the price of catching up still has after another time


class DraftLengthController:
    """Chooses among budgets of drafts; one for each pair of model and drafter, kept from call to call.

    Args:
        budgets: numbers of drafts to choose from, ascending, 0 first.
    """

    def __init__(self, draft_sizes: Sequence[int]) -> None:
        self.draft_sizes = tuple(draft_sizes)
        self._recent: defaultdict[tuple[int, int], deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._seconds: defaultdict[int, dict[int, float]] = defaultdict(dict)  # of a round, by group of batch sizes and budget
        self._kept = [0.0] * self.draft_sizes[-1]
        self._seen = [0.0] * self.draft_sizes[-1]
        self._tokens = self._expected()
        self._caught_up = 0.0, 0.0  # seconds, and tokens read in them
        self._saved = 0.0  # seconds that may be lost on a trial
        self._trial: tuple[int, int] | None = None  # a budget, and how many rounds it has to go
        # seconds that the best budget takes for the tokens of the one on trial, and which share of its own is lost at least
        self._against: tuple[float, float] | None = None
        self._rest = (0, 0)  # rounds in which none stays the choice, for a group of batch sizes
        self._turn = 0
        self._since_plain, self._plain_after = 0, PLAIN_FIRST

    def rests(self, rows: int) -> bool:
        """Whether none stays the choice for a round of `rows` rows, so that there is no need to ask `choose`."""
        left, group = self._rest
        if not left or group != rows.bit_length():
            return False
        self._rest = (left - 1, group)
        return True

    def choose(
        self,
        rows: int,
        most: int,
        left: float = float("inf"),
        catch_up_tokens: Callable[[int], int] = lambda budget: 0,
        apart: float = 0.0,
    ) -> int:
        """A budget for a round of `rows` rows, none of which can use more than `most` drafts.

        Args:
            left: tokens that a row will still get.
            behind: how many tokens the drafter would have to read first, to draft so many.
            apart: share of the time that is lost because drafts let rows end apart.
        """
        group = rows.bit_length()
        self._since_plain += 1
        within = [n for n in self.draft_sizes if n <= most]
        if self._trial is not None:
            budget, rounds = self._trial
            self._trial = (budget, rounds - 1) if rounds > 1 else None
            if budget in within:
                return budget
        self._against = None
        known = self._seconds[group]
        curve = sorted((self._like_others(group) if len(known) < 2 else known).items())
        # a straight line takes two points; and never further than one step beyond what was tried
        if (missing := next((n for n in (*within[1:2], 0) if n not in known), None)) is not None and len(curve) < 2:
            return self._try(missing, catch_up_tokens)
        if 0 not in known or self._since_plain > self._plain_after:
            self._trial = (0, 1)
            self._plain_after = min(2 * self._plain_after, PLAIN_LAST)
            return 0
        reach = within[: 2 + max((i for i, n in enumerate(within) if n <= curve[-1][0]), default=0)]
        rate = {n: self._tokens[n] / seconds(curve, n) for n in reach}
        best = max(reach, key=lambda n: rate[n] * (1 - (MARGIN + apart) * (n > 0)))
        if best and rate[best] < rate[0] * (1 + self._price(catch_up_tokens(best)) * rate[best] / left):
            best = 0
        if not best:
            self._plain_after = PLAIN_FIRST
        at = reach.index(best)
        others = [n for n in reach[max(1, at - 1) : at + 3] if n != best]
        if others:
            other = others[self._turn % len(others)]
            cost, worth, least = seconds(curve, other), self._tokens[other] / rate[best], AT_LEAST * (best == 0)
            loss = TRIAL * max(cost - worth, least * cost) + self._price(catch_up_tokens(other))
            if self._saved >= loss:
                self._turn += 1
                self._against = (worth, least)
                return self._try(other, catch_up_tokens)
            if not best:
                self._rest = (min(RESTING, int((loss - self._saved) / (PROBING * curve[0][1]))), group)
        return best if best in known else self._try(best, catch_up_tokens)

    def learn(self, rows: int, drafts: int, kept: Sequence[Sequence[int]], took: float, catch_up_tokens: int = 0) -> None:
        """What a round was like.

        Args:
            rows, drafts: over how many rows, and drafts a row. took: seconds.
            kept: which drafts of some of those rows stayed, from 1.
            behind: tokens that its drafter had to read first.
        """
        group = rows.bit_length()
        budget = next(n for n in self.draft_sizes if n >= drafts)
        if not budget:
            self._since_plain = 0
        if not catch_up_tokens:
            recent = self._recent[group, budget]
            recent.append(took)
            # what disturbs a timing makes it longer: the second shortest of five
            self._seconds[group][budget] = sorted(recent)[len(recent) // 4]
        elif usual := self._seconds[group].get(budget):
            took_before, read_before = self._caught_up
            self._caught_up = CATCHING_UP * took_before + took - usual, CATCHING_UP * read_before + catch_up_tokens
        self._saved += PROBING * took
        if self._against is not None:
            worth, least = self._against
            self._saved -= max(took - worth, least * took)
        if drafts:
            memory = MEMORY ** len(kept)
            for i in range(drafts):
                self._seen[i] = memory * self._seen[i] + len(kept)
                self._kept[i] *= memory
            for node in (node for nodes in kept for node in nodes):
                self._kept[node - 1] += 1
            self._tokens = self._expected()

    def _expected(self) -> list[float]:
        """By number of drafts. A draft seldom tried is thought to be about as good as the one before it."""
        found = [1.0]
        share = PRIOR
        for kept, seen in zip(self._kept, self._seen, strict=True):
            share = (kept + WEIGHT * share) / (seen + WEIGHT)
            found.append(found[-1] + share)
        return found

    def _like_others(self, group: int) -> Mapping[int, float]:
        """What rounds should take in a group that has seen one budget at most: as in the nearest that has seen more."""
        known = self._seconds[group]
        others = [g for g, costs in self._seconds.items() if len(costs) > 1 and 0 in costs]
        if not others:
            return known
        near = self._seconds[min(others, key=lambda g: abs(g - group))]
        scale = known[0] / near[0] if 0 in known else 1.0
        return {n: cost * scale for n, cost in near.items()}

    def _price(self, catch_up_tokens: int) -> float:
        """Seconds that it takes to read so many tokens first."""
        took, tokens = self._caught_up
        return catch_up_tokens * max(0.0, took / tokens) if tokens else 0.0

    def _try(self, budget: int, catch_up_tokens: Callable[[int], int]) -> int:
        self._trial = (budget, TRIAL - 1 + (catch_up_tokens(budget) > 0) if budget else PLAIN_TRIAL - 1)
        return budget


def seconds(curve: Sequence[tuple[int, float]], budget: int) -> float:
    """What a round should take: along straight lines between budgets that were tried, and on along the last of them; with one
    budget above 0 tried, no more than that."""
    (n0, t0), (n1, t1) = curve[-2:] if len(curve) > 2 else (curve[-1], curve[-1])
    for before, after in pairwise(curve):
        if budget <= after[0]:
            (n0, t0), (n1, t1) = before, after
            break
    slope = (t1 - t0) / (n1 - n0) if n1 > n0 else 0.0
    return t1 + (slope if budget <= n1 else max(0.0, slope)) * (budget - n1)
