"""Bounds of percentiles: by hand, by exact fractions, against SciPy and MLPerf, and what they promise."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import binom, quantile_test

from scripts.verdicts.percentiles import interval, upper


def ranks(n: int) -> np.ndarray:
    """1 to n in some order: a bound is its own rank."""
    return np.random.default_rng(n).permutation(np.arange(1, n + 1)).astype(float)


# ---- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "bound"),
    [
        (0, None),
        (298, None),  # 0.99^298 = 0.0500 and more: all may lie below the p99
        (299, 299),  # 0.99^299 = 0.0495
        (472, 472),
        (473, 472),  # P(two at least lie above) = 0.9501
    ],
)
def test_the_p99_at_95_percent(n: int, bound: int | None) -> None:
    assert upper(ranks(n), 0.99, 0.95) == bound


@pytest.mark.parametrize(
    ("n", "bounds"),
    [
        (0, None),
        (5, None),  # 2 / 2^5 = 0.0625
        (6, (1, 6)),  # 2 / 2^6 = 0.03125
        (8, (1, 8)),  # 2 (1 + 8) / 2^8 = 0.0703
        (9, (2, 8)),  # 2 (1 + 9) / 2^9 = 0.0391
    ],
)
def test_the_median_at_95_percent(n: int, bounds: tuple[int, int] | None) -> None:
    assert interval(ranks(n), 0.5, 0.95) == bounds


@pytest.mark.parametrize(("share", "confidence"), [(0, 0.9), (1, 0.9), (99, 0.9), (0.9, 95)])
def test_percent_are_refused(share: float, confidence: float) -> None:
    with pytest.raises(ValueError, match=f"share {share}.* confidence {confidence} "):
        upper(ranks(500), share, confidence)


# ---- a second, slow implementation, and SciPy's ---------------------------------------------------


def at_most(k: int, n: int, share: float) -> Fraction:
    """P(Bin(n, share) <= k), exactly."""
    p = Fraction(share)
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_as_the_definition_says(share: float, confidence: float) -> None:
    for n in range(1, 41):
        good = [j for j in range(1, n + 1) if at_most(j - 1, n, share) >= Fraction(confidence)]
        assert upper(ranks(n), share, confidence) == (good[0] if good else None), n
        rest = (1 - Fraction(confidence)) / 2
        lows = [j for j in range(1, n + 1) if at_most(j - 1, n, share) <= rest]
        highs = [j for j in range(1, n + 1) if at_most(j - 1, n, share) >= 1 - rest]
        both = (lows[-1], highs[0]) if lows and highs else None
        assert interval(ranks(n), share, confidence) == both, n


@pytest.mark.parametrize("n", [5, 6, 44, 298, 299, 400, 2048, 8000])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_as_scipy_has_it(n: int, share: float, confidence: float) -> None:
    """Its quantile_test says NaN where there is no bound."""
    values = np.random.default_rng(n).exponential(size=n)
    one = quantile_test(values, p=share, alternative="less").confidence_interval(confidence)
    two = quantile_test(values, p=share).confidence_interval(confidence)
    assert upper(values, share, confidence) == (None if np.isnan(one.high) else one.high)
    both = None if np.isnan([two.low, two.high]).any() else (two.low, two.high)
    assert interval(values, share, confidence) == both


# ---- MLPerf's early stopping -----------------------------------------------------------------------


def accepts(h: int, t: int, share: float, confidence: float) -> bool:
    """Its rule for h values under a limit and t over it, as loadgen/early_stopping.cc writes it.

    The chance of t or fewer over it among h + t, if the percentile were the limit, is small.
    """
    return h > 0 and bool(betainc(h, 1 + t, share) <= 1 - confidence)


@pytest.mark.parametrize(("share", "confidence"), [(0.9, 0.99), (0.99, 0.99), (0.99, 0.95)])
@pytest.mark.parametrize("n", [1, 43, 44, 64, 298, 299, 458, 459, 1000, 2048])
def test_mlperf_accepts_a_limit_just_when_the_bound_keeps_it(
    n: int, share: float, confidence: float
) -> None:
    bound = upper(ranks(n), share, confidence)
    for h in range(n + 1):
        for limit in (h, h + 0.5):  # on a value, between two
            kept = bound is not None and bound <= limit
            assert accepts(h, n - h, share, confidence) == kept, (h, n - h)


@pytest.mark.parametrize(("n", "over"), [(2048, 173), (2116, 179), (2145, 182)])
def test_what_loadgen_finds(n: int, over: int) -> None:
    """The most values over the limit that its own search lets pass, with its 0.9 and 0.99."""
    assert upper(ranks(n), 0.9, 0.99) == n - over


# ---- what is promised ------------------------------------------------------------------------------


def test_the_bound_covers_as_often_as_it_says() -> None:
    """Whatever the distribution; and one value lower would not."""
    n, runs, share, confidence = 700, 3000, 0.99, 0.95
    values = np.random.default_rng(1).lognormal(sigma=2, size=(runs, n))
    true = float(np.exp(2 * 2.3263478740408408))
    bounds = np.array([upper(row, share, confidence) for row in values])
    lower = np.array([row[row < bound].max() for row, bound in zip(values, bounds, strict=True)])
    covered, uncovered = (bounds >= true).mean(), (lower >= true).mean()
    rank = upper(ranks(n), share, confidence)
    assert rank is not None and rank < n
    exact = float(binom.cdf(rank - 1, n, share))
    sigma = (exact * (1 - exact) / runs) ** 0.5
    assert exact >= confidence and abs(covered - exact) < 4 * sigma
    assert uncovered < confidence - 4 * sigma


def test_the_interval_errs_on_both_sides_alike() -> None:
    n, runs = 25, 4000
    values = np.random.default_rng(2).exponential(size=(runs, n))
    low, high = np.array([interval(row, 0.5, 0.95) for row in values]).T
    true = float(np.log(2))
    exact = float(binom.cdf(7, n, 0.5))  # x_(8) and x_(18): by hand
    assert interval(ranks(n), 0.5, 0.95) == (8, 18)
    assert 0.02 < exact < 0.025
    for missed in ((low > true).mean(), (high < true).mean()):
        assert abs(missed - exact) < 4 * (exact * (1 - exact) / runs) ** 0.5


def test_the_values_stay_as_they_are() -> None:
    values = ranks(299)
    before = values.copy()
    assert (upper(values, 0.99, 0.95), interval(values, 0.5, 0.95)) == (299, (133, 167))
    assert np.array_equal(values, before)
