"""The exact binomial test of a precision, for many cuts at once: a sharp bound decides most of them."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from scripts.verdicts.thresholds import Flags, Keys

SLACK = 1e-3  # in normal deviates: far above rounding, far below one sample


def rejects(hits: Keys, predicted: Keys, precision: Fraction, alpha: float) -> Flags:
    """Whether P(Bin(predicted, precision) >= hits) <= alpha: exact, for each cut.

    That probability lies between 1 - Phi(_root(hits)) and 1 - Phi(_root(hits - 1)) (Zubkov & Serov
    2013), which decides all but a few; those are computed.
    """
    from scipy.special import betainc, ndtri

    p, z = float(precision), -float(ndtri(alpha))
    passed = (hits > 0) & (_root(np.maximum(hits - 1, 0), predicted, p) > z + SLACK)
    unsure = np.flatnonzero((hits > 0) & ~passed & (_root(hits, predicted, p) > z - SLACK))
    tp, k = hits[unsure], predicted[unsure]
    passed[unsure] = betainc(tp, k - tp + 1, p) <= alpha
    return passed


def _root(x: Keys, k: Keys, p: float) -> NDArray[np.float64]:
    """sign(x / k - p) * sqrt(2 k KL(x / k, p)): nearly a normal deviate for x of Bin(k, p)."""
    from scipy.special import rel_entr

    twice = 2 * (rel_entr(x, k * p) + rel_entr(k - x, k * (1 - p)))
    return np.sign(x - k * p) * np.sqrt(np.maximum(twice, 0))
