"""Number of drafts that a step should verify, from measured step times and acceptance: speculation must never cost time.

The time of a step with n drafts is measured on this machine, with this model and batch size. Draft i adds a token only if accepted;
acceptance is counted. The draft size with the most tokens per second wins, and 0 is a size too. Draft i of a larger size is
also draft i of a smaller size: every step informs about all smaller sizes. A drafter that has paused must catch up first;
that time is measured apart and weighed against the steps that remain.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import Drafter
from headway.decoding.verify_inputs import VerifyInputs

PRIOR, PRIOR_STEPS = 0.7, 2.0  # assumed acceptance rate of the first draft, and the number of steps that the assumption counts for
EXPLORATION = 0.005  # share of the time that may be spent on steps that are not expected to be the best
MIN_TRIAL_LOSS = 0.25  # share of its time that a speculative trial is assumed to lose to autoregressive decoding, at least
MARGIN = 0.05  # required advantage of speculation over autoregressive decoding
TRIAL_STEPS = 2  # steps of a trial, and one more if the drafter has to catch up
FIRST_PLAIN_STEPS = 6  # steps without drafts at the start
# After this many speculative steps (first and maximum value), time two steps without drafts again: speculation may look faster only
# because other load slowed the earlier measurement.
PLAIN_AFTER_FIRST, PLAIN_AFTER_LAST = 16, 128
MAX_SKIP = 16  # maximum number of steps without drafts before the controller is asked again
RECENT = 5  # steps that a step time is taken from
ACCEPTANCE_MEMORY = 0.97  # weight of the earlier acceptance counts after one more sequence
CATCH_UP_MEMORY = 0.8  # weight of the earlier catch-up cost after one more measurement
STRAGGLER_PENALTY = 0.5  # of 16 rows of 32 tokens, full batches gained a fifth more from drafts than batches that nobody joins


def choose_num_draft_tokens(
    controller: "DraftLengthController | None", drafter: Drafter | None, batch: DecodingBatch, waiting: bool
) -> int:
    """Number of drafts per row for the next step: the controller's choice, or the drafter's maximum without a controller.

    Args:
        waiting: requests are waiting for a batch slot.
    """
    rows = batch.rows
    if drafter is None or (max_accepted := max(row.max_accepted for row in rows)) < 1:
        return 0
    most = drafter.max_draft_tokens(max_accepted)
    if controller is None:
        return most
    if controller.can_skip(len(rows)):
        return 0
    remaining = sum(1 + row.max_accepted for row in rows) / len(rows)
    # Sequences that start together finish at different steps because acceptance is random, and the slowest sequence determines when
    # the batch ends. The expected maximum of n random sums grows with sqrt(log n).
    new = max(row.limit - row.prompt_length for row in rows)
    penalty = 0.0 if waiting else STRAGGLER_PENALTY * math.sqrt(math.log2(len(rows)) / new)
    return controller.choose_draft_length(len(rows), most, remaining, lambda size: drafter.catch_up_tokens(batch, size), penalty)


def representative_rows(batch: DecodingBatch, inputs: VerifyInputs, waiting: bool) -> list[int]:
    """Rows with acceptance that informs about later steps: rows that could accept all drafts.

    Without waiting requests the longest sequences decide when the batch ends: only the quarter with the most tokens to go counts.
    """
    deepest = inputs.drafts if inputs.tree is None else 1
    rows = batch.rows
    late = 0 if waiting else sorted(row.max_accepted for row in rows)[-(len(rows) + 3) // 4]
    return [r for r, row in enumerate(rows) if row.max_accepted >= max(deepest, late)]


class DraftLengthController:
    """Controller of the number of drafts, for a pair of model and drafter; kept from call to call.

    Args:
        draft_sizes: numbers of drafts to choose from, ascending, 0 first.
    """

    def __init__(self, draft_sizes: Sequence[int]) -> None:
        self.draft_sizes = tuple(draft_sizes)
        self._recent: defaultdict[tuple[int, int], deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._seconds: defaultdict[int, dict[int, float]] = defaultdict(dict)  # of a step, by group of batch sizes and draft size
        self._accepted = [0.0] * self.draft_sizes[-1]
        self._seen = [0.0] * self.draft_sizes[-1]
        self._tokens = self._expected()
        self._caught_up = 0.0, 0.0  # seconds, and tokens processed in that time
        self._saved = 0.0  # seconds that may be lost on a trial
        self._trial: tuple[int, int] | None = None  # a draft size, and its remaining steps
        # of a trial: seconds in which the best size yields as many tokens, and the minimum share of the trial's time that is lost
        self._baseline: tuple[float, float] | None = None
        self._skip = (0, 0)  # remaining steps without drafts, for a group of batch sizes
        self._turn = 0
        self._since_plain, self._plain_after = 0, PLAIN_AFTER_FIRST

    def can_skip(self, rows: int) -> bool:
        """True if the last decision was to draft nothing and still holds for this batch size; no need for `choose_draft_length`."""
        left, group = self._skip
        if not left or group != rows.bit_length():
            return False
        self._skip = (left - 1, group)
        return True

    def choose_draft_length(
        self,
        rows: int,
        most: int,
        remaining: float = float("inf"),
        catch_up_tokens: Callable[[int], int] = lambda size: 0,
        straggler_penalty: float = 0.0,
    ) -> int:
        """Draft size for a step.

        Args:
            rows: batch size.
            most: maximum number of drafts that a row can use.
            remaining: mean number of tokens that a row still gets.
            catch_up_tokens: extra tokens that the drafter must process before a draft of a given size.
            straggler_penalty: share of the time that is lost because sequences finish at different steps.
        """
        group = rows.bit_length()
        self._since_plain += 1
        within = [n for n in self.draft_sizes if n <= most]
        if self._trial is not None:
            size, steps = self._trial
            self._trial = (size, steps - 1) if steps > 1 else None
            if size in within:
                return size
        self._baseline = None
        known = self._seconds[group]
        curve = sorted((self._scaled_from_nearest_group(group) if len(known) < 2 else known).items())
        # a straight line takes two points; and never further than one step beyond what was tried
        if (missing := next((n for n in (*within[1:2], 0) if n not in known), None)) is not None and len(curve) < 2:
            return self._start_trial(missing, catch_up_tokens)
        if 0 not in known or self._since_plain > self._plain_after:
            self._trial = (0, 1)
            self._plain_after = min(2 * self._plain_after, PLAIN_AFTER_LAST)
            return 0
        reach = within[: 2 + max((i for i, n in enumerate(within) if n <= curve[-1][0]), default=0)]
        rate = {n: self._tokens[n] / seconds(curve, n) for n in reach}
        best = max(reach, key=lambda n: rate[n] * (1 - (MARGIN + straggler_penalty) * (n > 0)))
        if best and rate[best] < rate[0] * (1 + self._catch_up_cost(catch_up_tokens(best)) * rate[best] / remaining):
            best = 0
        if not best:
            self._plain_after = PLAIN_AFTER_FIRST
        at = reach.index(best)
        others = [n for n in reach[max(1, at - 1) : at + 3] if n != best]
        if others:
            other = others[self._turn % len(others)]
            cost, worth, least = seconds(curve, other), self._tokens[other] / rate[best], MIN_TRIAL_LOSS * (best == 0)
            loss = TRIAL_STEPS * max(cost - worth, least * cost) + self._catch_up_cost(catch_up_tokens(other))
            if self._saved >= loss:
                self._turn += 1
                self._baseline = (worth, least)
                return self._start_trial(other, catch_up_tokens)
            if not best:
                self._skip = (min(MAX_SKIP, int((loss - self._saved) / (EXPLORATION * curve[0][1]))), group)
        return best if best in known else self._start_trial(best, catch_up_tokens)

    def record_step(self, rows: int, drafts: int, accepted: Sequence[Sequence[int]], took: float, catch_up_tokens: int = 0) -> None:
        """Learn from a finished step.

        Args:
            rows: batch size.
            drafts: number of drafts per row.
            accepted: of representative rows, the accepted nodes, from 1.
            took: seconds.
            catch_up_tokens: extra tokens that the drafter had to process.
        """
        group = rows.bit_length()
        size = next(n for n in self.draft_sizes if n >= drafts)
        if not size:
            self._since_plain = 0
        if not catch_up_tokens:
            recent = self._recent[group, size]
            recent.append(took)
            # what disturbs a timing makes it longer: the second shortest of five
            self._seconds[group][size] = sorted(recent)[len(recent) // 4]
        elif usual := self._seconds[group].get(size):
            took_before, read_before = self._caught_up
            self._caught_up = CATCH_UP_MEMORY * took_before + took - usual, CATCH_UP_MEMORY * read_before + catch_up_tokens
        self._saved += EXPLORATION * took
        if self._baseline is not None:
            worth, least = self._baseline
            self._saved -= max(took - worth, least * took)
        if drafts:
            memory = ACCEPTANCE_MEMORY ** len(accepted)
            for i in range(drafts):
                self._seen[i] = memory * self._seen[i] + len(accepted)
                self._accepted[i] *= memory
            for node in (node for nodes in accepted for node in nodes):
                self._accepted[node - 1] += 1
            self._tokens = self._expected()

    def _expected(self) -> list[float]:
        """Expected tokens per step, by number of drafts. A rarely tried draft inherits the acceptance rate of the draft before."""
        expected = [1.0]
        share = PRIOR
        for accepted, seen in zip(self._accepted, self._seen, strict=True):
            share = (accepted + PRIOR_STEPS * share) / (seen + PRIOR_STEPS)
            expected.append(expected[-1] + share)
        return expected

    def _scaled_from_nearest_group(self, group: int) -> Mapping[int, float]:
        """Step times of a batch-size group with at most one measured draft size, scaled from the nearest group with more."""
        known = self._seconds[group]
        others = [g for g, costs in self._seconds.items() if len(costs) > 1 and 0 in costs]
        if not others:
            return known
        near = self._seconds[min(others, key=lambda g: abs(g - group))]
        scale = known[0] / near[0] if 0 in known else 1.0
        return {n: cost * scale for n, cost in near.items()}

    def _catch_up_cost(self, catch_up_tokens: int) -> float:
        """Seconds that the drafter needs to catch up."""
        took, tokens = self._caught_up
        return catch_up_tokens * max(0.0, took / tokens) if tokens else 0.0

    def _start_trial(self, size: int, catch_up_tokens: Callable[[int], int]) -> int:
        self._trial = (size, TRIAL_STEPS - 1 + (catch_up_tokens(size) > 0) if size else FIRST_PLAIN_STEPS - 1)
        return size


def seconds(curve: Sequence[tuple[int, float]], size: int) -> float:
    """Expected time of a step: linear between measured draft sizes and beyond the last pair; constant beyond a single size.

    Args:
        curve: pairs of a measured draft size and the seconds of a step, ascending.
    """
    (n0, t0), (n1, t1) = curve[-2:] if len(curve) > 2 else (curve[-1], curve[-1])
    for before, after in pairwise(curve):
        if size <= after[0]:
            (n0, t0), (n1, t1) = before, after
            break
    slope = (t1 - t0) / (n1 - n0) if n1 > n0 else 0.0
    return t1 + (slope if size <= n1 else max(0.0, slope)) * (size - n1)
