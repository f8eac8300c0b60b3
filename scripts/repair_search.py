"""Which nodes of a low-precision graph flip verdicts, and the fewest to leave in float32.

Pure: what a set of nodes kept in float32 does is asked of a function, and every question costs a
conversion and its runs. `localise` ranks segments of the graph by what they do to the logits,
`repair` uses the ranking to find the smallest set with which nothing flips. Neither believes that
more float32 is better: what `repair` returns was itself tried.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb, inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NOTICEABLE = 0.05  # of what float32 throughout changes the logits by
SEGMENT_TRIALS, REPAIR_TRIALS = 60, 120  # budgets

Say = Callable[[int, str], None]


class Outcome(NamedTuple):
    """What comes out with some nodes kept in float32, on the samples that matter."""

    flips: int  # verdicts that differ from the reference's
    error: float  # sum of |logit - reference's|; infinite where a logit is not finite
    logits: NDArray[np.float32]


Evaluate = Callable[[frozenset[str]], Outcome]


class Segment(NamedTuple):
    """Nodes beside each other in graph order, and what they alone in float32 change."""

    nodes: list[str]
    change_mean: float  # of |logit - logit with nothing kept|; infinite where one is not finite
    change_max: float
    error_removed: float  # negative where the error grows
    flips_left: int


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


class OutOfBudget(Exception):
    """No more sets may be tried."""


class Remembered:
    """An `Evaluate` that tries no set twice: given to `localise` and `repair`, both use its answers."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.known: dict[frozenset[str], Outcome] = {}

    def __call__(self, keep: frozenset[str]) -> Outcome:
        if keep not in self.known:
            flips, error, logits = self.evaluate(keep)
            finite = np.isfinite(error) and bool(np.isfinite(logits).all())
            self.known[keep] = Outcome(int(flips), float(error) if finite else inf, logits)
        return self.known[keep]


class _Trials:
    """Counts the sets that were not known before, up to a budget, and says each."""

    def __init__(self, evaluate: Evaluate, nodes: list[str], budget: int, say: Say | None) -> None:
        if len(set(nodes)) != len(nodes):
            raise ValueError("two nodes have the same name")
        if budget < 2:
            raise ValueError(f"a budget of {budget}: nothing kept and everything kept are 2 sets")
        self.evaluate = evaluate if isinstance(evaluate, Remembered) else Remembered(evaluate)
        self.total, self.budget, self.say, self.done = len(nodes), budget, say, 0
        self.found_after: dict[frozenset[str], int] = {}

    @property
    def left(self) -> int:
        return self.budget - self.done

    def __call__(self, keep: frozenset[str]) -> Outcome:
        new = keep not in self.evaluate.known
        if new and not self.left:
            raise OutOfBudget
        found = self.evaluate(keep)
        self.done += new
        self.found_after.setdefault(keep, self.done)
        if new and self.say:
            self.say(self.done, f"{len(keep)} of {self.total} nodes kept: {found.flips} flips")
        return found


# ---- which segments matter ----------------------------------------------------------------------


Move = NDArray[np.float64]  # of each logit; inf where it becomes finite, -inf where it ceases to be


class Effect(NamedTuple):
    """How far logits move; compared in this order."""

    healed: int  # logits that become finite, less those that cease to be
    mean: float  # of |move|, over the others


class _Piece(NamedTuple):
    start: int
    stop: int
    move: Move  # measured, or what the other half leaves of the whole's
    anchor: tuple[int, int]  # the smallest segment around it that was measured to matter


def localise(
    nodes: list[str], evaluate: Evaluate, budget: int = SEGMENT_TRIALS, say: Say | None = None
) -> list[Segment]:
    """The segments of the graph that were tried, those first that move the logits most.

    nodes in graph order. Begins with the whole graph, and splits the segment that moves them most,
    as long as it is noticeable: makes a logit finite, or moves them by NOTICEABLE of what the whole
    does. Only the first half is tried (of the whole graph the second too, where the first does
    nothing); the second is taken to move each logit by the rest, and is tried when it is down to a
    node. Where that node does not, the halves matter only together: the segment that was last tried
    and noticeable is listed whole. A second half with nothing left to move is not listed. At most
    `budget` sets are tried.
    """
    if not nodes:
        return []
    trials = _Trials(evaluate, nodes, budget, say)
    base, full = trials(frozenset()), trials(frozenset(nodes))
    everything = _Piece(0, len(nodes), _move(base, full), (0, len(nodes)))
    whole = _effect(everything.move)
    tried: dict[tuple[int, int], Outcome] = {(0, len(nodes)): full}
    anchors = {(0, len(nodes))}
    waiting = [everything]

    def matters(piece: _Piece) -> bool:
        return _noticeable(_effect(piece.move), whole)

    def measure(start: int, stop: int, anchor: tuple[int, int]) -> _Piece:
        tried[start, stop] = trials(frozenset(nodes[start:stop]))
        piece = _Piece(start, stop, _move(base, tried[start, stop]), anchor)
        if not matters(piece):
            return piece
        anchors.add((start, stop))
        return piece._replace(anchor=(start, stop))

    try:
        while waiting := [piece for piece in waiting if matters(piece)]:
            i = max(range(len(waiting)), key=lambda i: _effect(waiting[i].move))
            piece = waiting.pop(i)
            start, stop, move, anchor = piece
            if stop - start > 1:
                middle = (start + stop) // 2
                first = measure(start, middle, anchor)
                second = _Piece(middle, stop, _rest(move, first.move), anchor)
                if piece is everything and not matters(first):
                    second = measure(middle, stop, anchor)
                waiting += [first, second]
            elif (start, stop) not in tried:
                measure(start, stop, anchor)
    except OutOfBudget:
        pass
    listed = _disjoint(tried, anchors)
    ranked = sorted(listed, key=lambda ends: _effect(_move(base, tried[ends])), reverse=True)
    return [_segment(nodes[start:stop], base, tried[start, stop]) for start, stop in ranked]


def _disjoint(
    tried: dict[tuple[int, int], Outcome], anchors: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The smallest segments tried; one that matters stands for those in it if none of them does."""
    listed: list[tuple[int, int]] = []
    for start, stop in sorted(tried, key=lambda ends: (ends[1] - ends[0], ends[0])):
        inner = [(a, b) for a, b in listed if start <= a and b <= stop]
        if (start, stop) in anchors and not any(ends in anchors for ends in inner):
            listed = [ends for ends in listed if ends not in inner]
            inner = []
        if not inner:
            listed.append((start, stop))
    return listed


def _segment(nodes: list[str], base: Outcome, kept: Outcome) -> Segment:
    change = np.abs(_move(base, kept))
    removed = 0.0 if base.error == kept.error else base.error - kept.error  # both may be infinite
    mean, most = (float(change.mean()), float(change.max())) if len(change) else (0.0, 0.0)
    return Segment(list(nodes), mean, most, removed, kept.flips)


def _move(base: Outcome, kept: Outcome) -> Move:
    old, new = (np.asarray(one.logits, np.float64).ravel() for one in (base, kept))
    was, now = np.isfinite(old), np.isfinite(new)
    move = np.where(now, new, 0) - np.where(was, old, 0)
    move[~was & now], move[was & ~now] = inf, -inf
    return move


def _rest(both: Move, first: Move) -> Move:
    """What the second half should move: what the first does not."""
    finite = np.isfinite(both) & np.isfinite(first)
    rest = np.where(finite, both, 0) - np.where(finite, first, 0)
    rest[(both == inf) & (first != inf)] = inf
    return rest


def _effect(move: Move) -> Effect:
    finite = move[np.isfinite(move)]
    healed = int((move == inf).sum()) - int((move == -inf).sum())
    return Effect(healed, float(np.abs(finite).mean()) if len(finite) else 0.0)


def _noticeable(effect: Effect, whole: Effect) -> bool:
    """NOTICEABLE says it of finite moves."""
    if effect.healed:
        return effect.healed > 0
    return effect.mean > 0 and effect.mean >= NOTICEABLE * whole.mean


# ---- the fewest nodes ---------------------------------------------------------------------------


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
    trials = _Trials(evaluate, nodes, budget, say)
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
    nodes: list[str], kept: frozenset[str], trials: _Trials, before: Outcome,
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
    whole = _effect(_move(before, full))

    def single(one: Segment) -> bool:
        healed = int(one.change_mean == inf and one.error_removed >= 0)
        return len(one.nodes) == 1 and _noticeable(Effect(healed, one.change_mean), whole)

    likely = [one.nodes[0] for one in ranked if single(one)]
    order = dict.fromkeys(likely)
    order |= dict.fromkeys(name for one in ranked for name in one.nodes)
    if unknown := set(order) - set(nodes):
        raise ValueError(f"the ranking names {min(unknown)!r}, which is none of the nodes")
    return list(order | dict.fromkeys(nodes)), len(set(likely))


def _irreducible(order: list[str], likely: int, trials: _Trials) -> frozenset[str]:
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


def _try_smaller(order: list[str], size: int, trials: _Trials, certain: bool) -> bool:
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
