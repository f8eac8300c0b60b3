"""Trying sets of nodes kept in float32: what each does is asked once, within a budget.

What a set does is asked of a function (`Evaluate`), and every question costs a conversion and its
runs. scripts/repair/ranking.py and scripts/repair/search.py ask.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Say = Callable[[int, str], None]


class Outcome(NamedTuple):
    """What comes out with some nodes kept in float32, on the samples that matter."""

    flips: int  # verdicts that differ from the reference's
    error: float  # sum of |logit - reference's|; infinite where a logit is not finite
    logits: NDArray[np.float32]


Evaluate = Callable[[frozenset[str]], Outcome]


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


class Trials:
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
