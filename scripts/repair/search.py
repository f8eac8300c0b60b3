"""The fewest nodes of a low-precision graph to leave in float32 so that no verdict flips.

Pure: what a set of nodes kept in float32 does is asked of a function (scripts/repair/trials.py).
`repair` begins with the ranking of `localise` (scripts/repair/ranking.py) to find the smallest set
with which nothing flips. Neither believes that more float32 is better: what `repair` returns was
itself tried.
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb, inf
from typing import NamedTuple

from scripts.repair.ranking import Effect, Segment, effect_of, moved, noticeable
from scripts.repair.trials import Evaluate, Outcome, OutOfBudget, Say, Trials

REPAIR_TRIALS = 120  # budget


class Repair(NamedTuple):
    """The nodes to keep in float32, in graph order, and how far that was proven."""

    kept: list[str]
    flips_before: int
    flips_after: int  # above 0 only where float32 throughout flips too: then `kept` is every node
    error_before: float
    error_after: float
    evaluations: int  # sets tried here
    found_after: int  # of them, until `kept` was known; the others prove that nothing smaller does
    smallest: bool  # every smaller set was tried
    alone: list[str]  # those of `kept` that flip verdicts with all other nodes in float32
    exhausted: bool  # the budget ended before the search did


def repair(
    nodes: list[str],
    evaluate: Evaluate,
    ranked: list[Segment],
    budget: int = REPAIR_TRIALS,
    say: Say | None = None,
) -> Repair:
    """The smallest set of nodes found with which nothing flips; of equal ones, the least error.

    nodes in graph order, `ranked` from `localise`, best first (it may leave nodes out, or be
    empty). Finds the shortest beginning of the ranked nodes that repairs; its last node is needed;
    seeks the shortest beginning that repairs together with it; and so on, until those needed
    repair alone: about log2(nodes) sets for each node kept. Then tries each kept node alone in low
    precision, and all smaller sets if they fit in the budget; if they do not, and a kept node does
    not flip alone, those of the first ranked nodes. At most `budget` sets are tried, at least 2.
    """
    trials = Trials(evaluate, nodes, budget, say)
    every = frozenset(nodes)
    before, full = trials(frozenset()), trials(every)
    if not before.flips:
        return _result(nodes, frozenset(), trials, before, smallest=True)
    if full.flips:
        return _result(nodes, every, trials, before)
    order, likely = _order(nodes, ranked, before, full)
    known = trials.evaluate.known
    smallest = exhausted = False
    try:
        found = _irreducible(order, likely, trials)
        single = [name for name in nodes if name in found and trials(every - {name}).flips]
        smallest = _try_smaller(order, len(found), trials, len(single) == len(found))
        for name in [name for name in nodes if name in _best(known, every)]:
            trials(every - {name})
    except OutOfBudget:
        exhausted = True
    best = _best(known, every)
    smallest |= len(best) == 1
    alone = [name for name in nodes if name in best and _flips(known, every - {name})]
    return _result(nodes, best, trials, before, smallest, alone, exhausted)


def _best(known: dict[frozenset[str], Outcome], every: frozenset[str]) -> frozenset[str]:
    """Of the sets tried with which nothing flips: the fewest nodes, then the least error."""
    good = [keep for keep, outcome in known.items() if not outcome.flips and keep <= every]
    return min(good, key=lambda keep: (len(keep), known[keep].error))


def _flips(known: dict[frozenset[str], Outcome], keep: frozenset[str]) -> bool:
    return keep in known and known[keep].flips > 0


def _result(
    nodes: list[str], kept: frozenset[str], trials: Trials, before: Outcome,
    smallest: bool = False, alone: list[str] | None = None, exhausted: bool = False,
) -> Repair:  # fmt: skip
    after = trials.evaluate(kept)
    return Repair(
        kept=[name for name in nodes if name in kept],
        flips_before=before.flips,
        flips_after=after.flips,
        error_before=before.error,
        error_after=after.error,
        evaluations=trials.done,
        found_after=trials.found_after.get(kept, 0),
        smallest=smallest,
        alone=alone or [],
        exhausted=exhausted,
    )


def _order(
    nodes: list[str], ranked: list[Segment], before: Outcome, full: Outcome
) -> tuple[list[str], int]:
    """The nodes, best ranked first; how many of the first matter each by itself."""
    whole = effect_of(moved(before, full))

    def single(one: Segment) -> bool:
        healed = int(one.change_mean == inf and one.error_removed >= 0)
        return len(one.nodes) == 1 and noticeable(Effect(healed, one.change_mean), whole)

    likely = [one.nodes[0] for one in ranked if single(one)]
    order = dict.fromkeys(likely)
    order |= dict.fromkeys(name for one in ranked for name in one.nodes)
    if unknown := set(order) - set(nodes):
        raise ValueError(f"the ranking names {min(unknown)!r}, which is none of the nodes")
    return list(order | dict.fromkeys(nodes)), len(set(likely))


def _irreducible(order: list[str], likely: int, trials: Trials) -> frozenset[str]:
    """A set that repairs, from which nothing can be left out if more float32 is never worse."""
    found: frozenset[str] = frozenset()
    good, probe = len(order), likely  # found and order[:good] are known to repair
    while trials(found).flips:
        bad = 0
        while good - bad > 1:
            size = probe if bad < probe < good else (bad + good) // 2
            probe = 0
            if trials(found | set(order[:size])).flips:
                bad = size
            else:
                good = size
        found |= {order[good - 1]}
        good -= 1
    return found


def _try_smaller(order: list[str], size: int, trials: Trials, certain: bool) -> bool:
    """Whether all sets of fewer than `size` nodes were tried; stops at the first size that repairs.

    `certain`: each node flips alone, so that no smaller set repairs if more float32 is never worse:
    then they are tried only if all fit in the budget.
    """
    pool = order
    left = trials.left - size  # what is found is tried alone
    if _sets(len(order), size) > left:
        if certain:
            return False
        fits = [n for n in range(len(order)) if n == 0 or _sets(n, size) <= left]
        pool = order[: max(fits)]
    every = len(pool) == len(order)
    for smaller in range(1, size):
        for keep in _by_rank(pool, smaller):
            if not trials(keep).flips:
                return every
    return every


def _sets(nodes: int, size: int) -> int:
    """How many sets of fewer than `size` nodes there are, the empty one aside."""
    return sum(comb(nodes, smaller) for smaller in range(1, size))


def _by_rank(order: list[str], size: int) -> Iterator[frozenset[str]]:
    """All sets of `size`, those of the best ranked nodes first."""
    for last in range(size - 1, len(order)):
        for others in combinations(order[:last], size - 1):
            yield frozenset((*others, order[last]))
