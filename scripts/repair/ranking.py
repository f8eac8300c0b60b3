"""Which segments of a low-precision graph move the logits, by what they do when left in float32.

Pure. `localise` ranks them; scripts/repair/search.py uses the ranking to find the fewest nodes.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.repair.trials import Evaluate, Outcome, OutOfBudget, Say, Trials

NOTICEABLE = 0.05  # of what float32 throughout changes the logits by
SEGMENT_TRIALS = 60  # budget

Move = NDArray[np.float64]  # of each logit; inf where it becomes finite, -inf where it ceases to be


class Segment(NamedTuple):
    """Nodes beside each other in graph order, and what they alone in float32 change."""

    nodes: list[str]
    change_mean: float  # of |logit - logit with nothing kept|; infinite where one is not finite
    change_max: float
    error_removed: float  # negative where the error grows
    flips_left: int


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
    trials = Trials(evaluate, nodes, budget, say)
    base, full = trials(frozenset()), trials(frozenset(nodes))
    everything = _Piece(0, len(nodes), moved(base, full), (0, len(nodes)))
    whole = effect_of(everything.move)
    tried: dict[tuple[int, int], Outcome] = {(0, len(nodes)): full}
    anchors = {(0, len(nodes))}
    waiting = [everything]

    def matters(piece: _Piece) -> bool:
        return noticeable(effect_of(piece.move), whole)

    def measure(start: int, stop: int, anchor: tuple[int, int]) -> _Piece:
        tried[start, stop] = trials(frozenset(nodes[start:stop]))
        piece = _Piece(start, stop, moved(base, tried[start, stop]), anchor)
        if not matters(piece):
            return piece
        anchors.add((start, stop))
        return piece._replace(anchor=(start, stop))

    try:
        while waiting := [piece for piece in waiting if matters(piece)]:
            i = max(range(len(waiting)), key=lambda i: effect_of(waiting[i].move))
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
    ranked = sorted(listed, key=lambda ends: effect_of(moved(base, tried[ends])), reverse=True)
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
    change = np.abs(moved(base, kept))
    removed = 0.0 if base.error == kept.error else base.error - kept.error  # both may be infinite
    mean, most = (float(change.mean()), float(change.max())) if len(change) else (0.0, 0.0)
    return Segment(list(nodes), mean, most, removed, kept.flips)


def moved(base: Outcome, kept: Outcome) -> Move:
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


def effect_of(move: Move) -> Effect:
    finite = move[np.isfinite(move)]
    healed = int((move == inf).sum()) - int((move == -inf).sum())
    return Effect(healed, float(np.abs(finite).mean()) if len(finite) else 0.0)


def noticeable(effect: Effect, whole: Effect) -> bool:
    """NOTICEABLE says it of finite moves."""
    if effect.healed:
        return effect.healed > 0
    return effect.mean > 0 and effect.mean >= NOTICEABLE * whole.mean
