"""What measured values say of a percentile, with confidence: bounds by order statistics.

A measured p99 is an estimate: measured again it may be higher. Of n independent values, as many as
Bin(n, share) says lie below the true percentile, whatever their distribution; so the j-th smallest lies
above it with probability P(Bin(n, share) <= j - 1) at least (David and Nagaraja, Order Statistics, 7.1).

A bound accepts what MLPerf's early stopping accepts: with h values up to a limit and t beyond it, that
asks for P(Bin(h + t, 1 - share) <= t) <= 1 - confidence, which is P(Bin(h + t, share) <= h - 1) >=
confidence (loadgen/early_stopping.cc, with its tolerance at 0). `upper` is the lowest such limit.

Values that follow one another are seldom independent: a slow machine stays slow for a while. Then the
confidence is less than was asked for.
"""

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95  # of every bound and interval in a result


def upper(values: ArrayLike, share: float, confidence: float) -> float | None:
    """The upper confidence bound of the `share` percentile; None: too few values for one.

    For 0.99 with confidence 0.95 it takes 299 values, and their largest is the bound.
    """
    if not (0 < share < 1 and 0 < confidence < 1):
        raise ValueError(f"share {share} and confidence {confidence} must lie between 0 and 1")
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, np.float64))
    below = binom.cdf(
        np.arange(len(ordered)), len(ordered), share
    )  # [j - 1]: that x_(j) is a bound
    at = int(np.searchsorted(below, confidence))
    return float(ordered[at]) if at < len(ordered) else None


def interval(values: ArrayLike, share: float, confidence: float) -> tuple[float, float] | None:
    """The two-sided confidence interval of the `share` percentile; None: too few values for one.

    Each side may be wrong with half of what the confidence leaves. A median at 0.95 takes 6 values.
    """
    side = (1 + confidence) / 2
    high = upper(values, share, side)
    low = upper(-np.asarray(values, np.float64), 1 - share, side)
    return None if low is None or high is None else (-low, high)
