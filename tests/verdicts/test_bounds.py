"""Bounds: against slow, obvious implementations, SciPy, hand-worked cases, and simulation."""

import math
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from scripts.bench.simulate_guarantees import bound_violations
from scripts.verdicts import bounds, thresholds
from scripts.verdicts.bounds import (
    Forecast,
    Nearest,
    certificate,
    detectable_change,
    flip_bound,
    forecast,
    harm,
    mcnemar,
    precision_bound,
    retuned_bound,
    samples_needed,
)


def array(values):
    return np.array(values, np.float32)


@pytest.fixture(params=[1, 3, 1 << 16], ids=lambda size: f"parts of {size}")
def parts(request, monkeypatch):
    """The same work in many parts, a few, and one."""
    monkeypatch.setattr(thresholds, "PART", request.param)


def at_most(x, n, rate):
    """P(Bin(n, rate) <= x), term by term."""
    return math.fsum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(x + 1))


def slow_bound(x, n, alpha):
    """The rate at which x or fewer of n have probability alpha, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        low, high = (rate, high) if at_most(x, n, rate) > alpha else (low, rate)
    return low


# ---- Clopper-Pearson ----------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(("x", "n"), [(0, 1), (0, 7), (1, 7), (6, 7), (3, 40), (20, 40), (39, 40)])
def test_the_bounds_are_where_the_tail_has_probability_alpha(x, n, alpha):
    assert flip_bound(x, n, alpha) == pytest.approx(slow_bound(x, n, alpha), abs=1e-12)
    right = n - x  # seen from the other side, x of n is n - x of n
    assert precision_bound(right, n, alpha) == pytest.approx(1 - slow_bound(x, n, alpha), abs=1e-12)


def test_the_bounds_agree_with_binomtest():
    random = np.random.default_rng(1)
    for _ in range(200):
        n = int(random.integers(1, 10 ** int(random.integers(1, 6))))
        x = int(random.choice([0, n, random.integers(0, n + 1)]))
        alpha = float(random.choice([0.001, 0.01, 0.05, 0.2]))
        upper = binomtest(x, n, alternative="less").proportion_ci(1 - alpha, "exact").high
        lower = binomtest(x, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
        assert flip_bound(x, n, alpha) == pytest.approx(upper, rel=1e-9)
        assert precision_bound(x, n, alpha) == pytest.approx(lower, rel=1e-9)


def test_the_rule_of_three_and_the_numbers_of_the_methods():
    for n, wanted in [(1000, 3.0e-3), (10_000, 3.0e-4), (50_000, 6.0e-5)]:
        assert flip_bound(0, n, 0.05) == pytest.approx(wanted, rel=0.005)
        assert flip_bound(0, n, 0.05) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
        assert flip_bound(0, n, 0.01) == pytest.approx(4.6 / n, rel=0.005)
    assert flip_bound(1, 10_000, 0.05) == pytest.approx(4.7e-4, rel=0.01)


def test_the_ends_and_confidences_near_one():
    assert flip_bound(5, 5, 0.05) == 1.0
    assert precision_bound(0, 5, 0.05) == 0.0
    assert flip_bound(0, 1, 0.05) == pytest.approx(0.95)
    assert precision_bound(1, 1, 0.05) == pytest.approx(0.05)
    # 1 - 1e-20 is 1.0 in float64, and the bound must not be
    assert flip_bound(0, 1000, 1e-20) == pytest.approx(1 - 1e-20 ** (1 / 1000), rel=1e-9)


@pytest.mark.parametrize(("k", "tp"), [(100, 96), (300, 279), (1000, 916), (3000, 2728)])
def test_what_certifies_nine_tenths(k, tp):
    assert precision_bound(tp, k, 0.05) >= 0.9 > precision_bound(tp - 1, k, 0.05)


def test_28_of_28_do_not_certify_nine_tenths():
    assert precision_bound(28, 28, 0.05) < 0.9 < precision_bound(29, 29, 0.05)


@pytest.mark.parametrize(("n", "rate"), [(1000, 1e-2), (300, 1e-2), (2000, 1e-3)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_flip_bound_misses_the_true_rate_at_most_alpha_of_the_time(n, rate, alpha):
    missed = bound_violations(3000, n, rate, 7, alpha)
    below = binom.cdf(np.arange(n), n, rate)
    expected = below[below < alpha].max(initial=0)  # as near to alpha as whole flips come
    assert abs(missed - 3000 * expected) <= 3 * math.sqrt(3000 * alpha * (1 - alpha))


@pytest.mark.parametrize(
    ("flips", "rate", "n"),
    [(0, 1e-2, 299), (0, 1e-3, 2995), (0, 1e-4, 29956), (1, 1e-2, 473), (1, 1e-3, 4742), (1, 1e-4, 47437)],
)  # fmt: skip
def test_the_samples_needed_of_the_methods(flips, rate, n):
    assert samples_needed(rate, 0.05, flips) == n
    if not flips:
        assert n == math.ceil(math.log(0.05) / math.log(1 - rate))


def test_the_samples_needed_are_the_fewest():
    random = np.random.default_rng(2)
    for _ in range(100):
        rate, alpha = random.uniform(0.01, 0.9), random.uniform(0.01, 0.9)
        flips = int(random.integers(0, 5))
        slow = next(n for n in range(flips + 1, 10_000) if flip_bound(flips, n, alpha) <= rate)
        assert samples_needed(rate, alpha, flips) == slow
    assert samples_needed(0.99, 0.5) == 1


# ---- the same samples chose the threshold -------------------------------------------------------


def test_the_retuned_bound_is_the_formula_of_the_methods():
    for flips, n in [(0, 10_000), (3, 500), (0, 3), (7, 9)]:
        wanted = beta.ppf(1 - 0.05 / n, flips + 1, n - 1 - flips)
        assert retuned_bound(flips, n, 0.05) == pytest.approx(wanted, rel=1e-9)
        assert retuned_bound(flips, n, 0.05) > flip_bound(flips, n, 0.05)
    assert retuned_bound(0, 10_000, 0.05) * 10_000 == pytest.approx(12.2, abs=0.05)
    assert retuned_bound(0, 10_000, 0.05, points=2) * 10_000 == pytest.approx(21.4, abs=0.05)


def test_a_retuned_bound_with_nothing_left_to_judge_is_one():
    assert retuned_bound(0, 1, 0.05) == retuned_bound(8, 9, 0.05) == 1.0
    assert retuned_bound(0, 2, 0.05, points=2) == retuned_bound(7, 9, 0.05, points=2) == 1.0
    assert retuned_bound(7, 9, 0.05) < 1.0


def test_the_bound_after_retuning_holds_where_the_plain_one_does_not():
    """z uniform, the verdict [z >= 1/2] but for 30 %: a threshold t flips 0.3 + 0.4 |t - 1/2|."""
    random = np.random.default_rng(3)
    plain = retuned = 0
    for _ in range(400):
        z = random.random(30).astype(np.float32)
        verdicts = (z >= 0.5) ^ (random.random(30) < 0.3)
        found = thresholds.retune(z, verdicts, 9.0, 0.01)
        rate = 0.3 + 0.4 * abs(min(max(found.logit, 0.0), 1.0) - 0.5)
        plain += flip_bound(found.flips, 30, 0.05) < rate
        retuned += retuned_bound(found.flips, 30, 0.05, points=2) < rate
    assert plain > 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
    assert retuned <= 400 * 0.05


# ---- McNemar ------------------------------------------------------------------------------------


def test_mcnemar_and_harm_agree_with_binomtest():
    for worse in range(0, 30, 3):
        for better in range(0, 30):
            if worse + better:
                two_sided = binomtest(worse, worse + better).pvalue
                above = binomtest(worse, worse + better, alternative="greater").pvalue
                assert mcnemar(worse, better) == pytest.approx(two_sided, rel=1e-9)
                assert harm(worse, better) == pytest.approx(above, rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar(12, 8) == mcnemar(8, 12) == pytest.approx(0.5034, abs=5e-5)
    assert mcnemar(0, 0) == harm(0, 0) == 1.0
    assert harm(5, 0) == pytest.approx(1 / 32)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert harm(0, 5) == 1.0
    assert harm(1, 1) == pytest.approx(3 / 4)


def test_the_detectable_change():
    assert detectable_change(0.01, 10_000) == pytest.approx(2.8016e-3, abs=1e-7)
    normal = NormalDist()
    wanted = (normal.inv_cdf(0.995) + normal.inv_cdf(0.9)) * math.sqrt(0.2 / 50)
    assert detectable_change(0.2, 50, alpha=0.01, power=0.9) == pytest.approx(wanted, rel=1e-9)
    assert detectable_change(0.0, 50) == 0.0


# ---- forecast -----------------------------------------------------------------------------------


def slow_forecast(reference, deviation, threshold):
    """(per million, half-width, samples, the absolute deviations in the band)."""
    margins = sorted(abs(float(s) - threshold) for s in reference)
    h = margins[min(100, len(margins)) - 1]
    inside = [
        abs(float(d))
        for s, d in zip(reference, deviation, strict=True)
        if abs(float(s) - threshold) <= h
    ]
    density = len(inside) / (len(reference) * 2 * h)
    return 1e6 * density * math.fsum(inside) / len(inside), h, len(inside), inside


def test_the_forecast_agrees_with_the_slow_one(parts):
    random = np.random.default_rng(4)
    for n in (1, 2, 99, 100, 101, 700):
        for digits in (None, 1):
            reference = random.normal(0, 2, n)
            reference = array(reference if digits is None else np.round(reference, digits))
            deviation = random.normal(0, 0.1, n)
            found = forecast(reference, deviation, 0.3 + 1e-9)
            wanted, h, samples, _ = slow_forecast(reference, deviation, 0.3 + 1e-9)
            assert found.per_million == pytest.approx(wanted, rel=1e-9)
            assert (found.half_width, found.samples) == (h, samples)
            assert 0 <= found.low <= found.high
            assert n < 50 or found.low < found.per_million < found.high
    assert samples > 100  # of the last, rounded: ties at the band's edge are all in it


def test_a_forecast_by_hand():
    # margins 0.5 and 0.5 around 1.5, |deviation| 0.2 and 0.4: 1e6 * 2 / (2 * 2 * 0.5) * 0.3
    found = forecast(array([1, 2]), np.array([0.2, -0.4]), 1.5)
    assert found == Forecast(pytest.approx(3e5), pytest.approx(2e5), pytest.approx(4e5), 0.5, 2)


def test_no_deviation_no_flips():
    found = forecast(array([1, 2, 3]), np.zeros(3), 1.0)
    assert (found.per_million, found.low, found.high) == (0, 0, 0)


def test_the_interval_is_that_of_a_slow_bootstrap(monkeypatch):
    """Drawn sample by sample of the whole data; and by the normal law, for large bands."""
    random = np.random.default_rng(5)
    reference, deviation = array(random.normal(0, 1, 2000)), random.exponential(0.1, 2000)
    found = forecast(reference, deviation, 0.1, resamples=4000)
    inside = np.abs(reference.astype(np.float64) - 0.1) <= found.half_width
    sums = []
    for _ in range(4000):
        rows = random.integers(0, 2000, 2000)
        sums.append(deviation[rows][inside[rows]].sum())
    slow = np.percentile(1e6 * np.array(sums) / (2000 * 2 * found.half_width), [2.5, 97.5])
    width = slow[1] - slow[0]
    assert np.abs(np.array([found.low, found.high]) - slow).max() < 0.06 * width
    monkeypatch.setattr(bounds, "DRAWN", 0)
    normal = forecast(reference, deviation, 0.1, resamples=4000)
    assert np.abs(np.array([normal.low, normal.high]) - slow).max() < 0.06 * width
    assert normal.low != found.low


def test_the_interval_of_a_forecast_is_a_function_of_the_seed():
    random = np.random.default_rng(6)
    reference, deviation = array(random.normal(0, 1, 500)), random.normal(0, 1, 500)
    first, again, other = (forecast(reference, deviation, 0.0, seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.per_million == other.per_million


def test_the_forecast_foretells():
    """Logits Normal(0, 1), deviations Normal(0, 0.02): fresh flips per million, by the law's parts."""
    random = np.random.default_rng(8)
    covered = 0
    truth = 1e6 * NormalDist().pdf(0.5) * 0.02 * math.sqrt(2 / math.pi)
    fresh, noise = random.normal(size=400_000), random.normal(0, 0.02, 400_000)
    assert np.mean((fresh >= 0.5) != (fresh + noise >= 0.5)) * 1e6 == pytest.approx(truth, rel=0.05)
    for seed in range(200):
        reference = array(random.normal(size=2000))
        found = forecast(reference, random.normal(0, 0.02, 2000), 0.5, seed)
        covered += found.low <= truth <= found.high
    assert 175 <= covered <= 199


# ---- certificate --------------------------------------------------------------------------------


def slow_certificate(reference, variant, threshold):
    """Everything but the unseen bound, sample by sample."""
    rows = []
    for i, (s, z) in enumerate(zip(reference.tolist(), variant.tolist(), strict=True)):
        margin, finite = abs(s - threshold), math.isfinite(z)
        delta = abs(z - s) if finite else math.inf
        flipped = not finite or (z >= threshold) != (s >= threshold)
        rows.append((margin, i, delta, math.inf if delta == 0 else margin / delta, flipped))
    near = sorted(rows)[: max(100, len(rows) // 100)]
    band = near[-1][0]
    largest = max(row[2] for row in rows if row[0] <= band)
    listed = tuple(Nearest(row[1], row[0], row[3]) for row in sorted(rows)[:10])
    return {
        "samples": len(rows),
        "flips": sum(row[4] for row in rows),
        "min_safety_factor": min(row[3] for row in rows),
        "nearest": listed,
        "band": band,
        "band_samples": sum(row[0] <= band for row in rows),
        "max_deviation": largest,
        "coverage": sum(row[0] > largest for row in rows) / len(rows),
    }, rows


def test_the_certificate_agrees_with_the_slow_one(parts):
    random = np.random.default_rng(9)
    seen_flips = seen_ties = 0
    for n in (1, 2, 9, 10, 11, 100, 101, 350):
        for broken in (0.0, 0.05):
            reference = np.round(random.normal(0, 2, n), int(random.integers(0, 3)))
            noise = random.normal(0, 0.1, n) * (random.random(n) < 0.7)
            variant = array(reference + noise)
            bad = random.random(n) < broken
            variant[bad] = random.choice([np.nan, np.inf, -np.inf], bad.sum())
            found = certificate(array(reference), variant, 0.05, 0.05, m=0.1)
            wanted, rows = slow_certificate(array(reference), variant, 0.05)
            for name, value in wanted.items():
                assert getattr(found, name) == value, name
            within = sum(row[0] <= 0.1 for row in rows)
            beyond = sum(row[2] > 0.1 for row in rows)
            both = flip_bound(within, n, 0.025) + flip_bound(beyond, n, 0.025)
            assert (found.margin, found.unseen) == (0.1, min(1.0, both))
            seen_flips += found.flips
            seen_ties += found.band_samples > 100
    assert seen_flips > 20
    assert seen_ties > 0


def test_above_100_samples_per_band_it_is_one_in_a_hundred():
    reference = array(np.arange(20_000))
    found = certificate(reference, reference, -1.0, 0.05)
    assert (found.band, found.band_samples) == (200.0, 200)


def test_a_certificate_by_hand(parts):
    found = certificate(array([0, 1, 3, 5]), array([0, 1.5, 2.5, 9]), 2.0, 0.05)
    assert [(row.index, row.margin) for row in found.nearest] == [(1, 1), (2, 1), (0, 2), (3, 3)]
    assert [row.safety_factor for row in found.nearest] == [2.0, 2.0, math.inf, 0.75]
    assert (found.samples, found.flips, found.min_safety_factor) == (4, 0, 0.75)
    assert (found.band, found.band_samples, found.max_deviation) == (3.0, 4, 4.0)
    assert (found.coverage, found.margin, found.unseen) == (0.0, None, None)


def test_on_m_itself_a_margin_counts_and_a_deviation_does_not():
    reference = array([1, 2, 3, 4])  # margins 1, 2, 3, 4; deviations 1, 0, 2, 0
    found = certificate(
        np.repeat(reference, 25), np.repeat(array([2, 2, 5, 4]), 25), 0.0, 0.2, m=1.0
    )
    assert found.unseen == 2 * flip_bound(25, 100, 0.1) < 1.0


def test_a_perfect_variant_has_no_deviation():
    found = certificate(array([0, 1, 3]), array([0, 1, 3]), 1.0, 0.05, m=0.0)
    assert (found.flips, found.min_safety_factor, found.max_deviation) == (0, math.inf, 0)
    assert found.coverage == 2 / 3  # the sample on the threshold has no margin
    assert found.nearest[0] == Nearest(1, 0.0, math.inf)
    assert found.unseen == min(1.0, flip_bound(1, 3, 0.025) + flip_bound(0, 3, 0.025))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_variant_that_is_not_finite_has_flipped(parts, bad):
    for where in (0, 2):  # a reference verdict of each kind
        variant = array([0, 1, 3])
        variant[where] = bad
        found = certificate(array([0, 1, 3]), variant, 2.0, 0.05, m=0.5)
        assert (found.flips, found.min_safety_factor, found.max_deviation) == (1, 0, math.inf)
        assert found.coverage == 0
        assert not any(math.isnan(row.safety_factor) for row in found.nearest)


def test_a_distance_is_taken_in_float64():
    """In float32, 1 and this threshold are the same number."""
    threshold = 1 + 1e-9
    found = certificate(array([1, 2]), array([2, 2]), threshold, 0.05)
    assert found.nearest[0].margin == pytest.approx(1e-9)
    assert found.flips == 1


@pytest.mark.parametrize("alpha", [0.05, 0.6])
def test_the_unseen_bound_holds_where_all_flip_that_may(alpha):
    """1 % lie within m and flip, 1 % deviate by more than m and flip, no other: a rate of 0.02."""
    random = np.random.default_rng(10)
    missed = 0
    for _ in range(300):
        kind = random.random(1000)
        reference = np.where(kind < 0.01, 0.05, 2.0).astype(np.float32)
        moved = np.select([kind < 0.01, kind < 0.02], [-0.08, -3.0], 0.01)
        found = certificate(reference, array(reference + moved), 0.0, alpha, m=0.1)
        assert found.flips == (kind < 0.02).sum()
        missed += found.unseen < 0.02
    assert missed <= 300 * alpha
    assert missed > 0 or alpha < 0.5  # the bound is near enough to be missed at times


def test_the_unseen_bound_is_at_most_one():
    reference = array([0, 1, 2])
    assert certificate(reference, reference, 0.0, 0.05, m=math.inf).unseen == 1.0


def test_a_million_samples_need_less_than_one_copy_of_them():
    random = np.random.default_rng(11)
    reference = random.normal(0, 2, 1_000_000).astype(np.float32)
    variant = reference + random.normal(0, 1e-3, 1_000_000).astype(np.float32)
    deviation = variant - reference
    forecast(reference[:200], deviation[:200], 0.1)  # what is imported on the first call
    certificate(reference[:200], variant[:200], 0.1, 0.05, m=0.1)
    tracemalloc.start()
    forecast(reference, deviation, 0.1)
    certificate(reference, variant, 0.1, 0.05, m=0.01)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


# ---- what is refused ----------------------------------------------------------------------------

NAN = math.nan
TWO = array([1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flip_bound(0, 0, 0.05), "0 flips of 0 samples"),
        (lambda: flip_bound(5, 4, 0.05), "5 flips of 4 samples"),
        (lambda: flip_bound(-1, 4, 0.05), "-1 flips of 4 samples"),
        (lambda: flip_bound(NAN, 4, 0.05), "nan flips of 4 samples"),
        (lambda: flip_bound(4, 4, 1.0), "alpha is 1.0"),
        (lambda: flip_bound(0, 4, 0.0), "alpha is 0.0"),
        (lambda: flip_bound(0, 4, NAN), "alpha is nan; it must lie between 0 and 1"),
        (lambda: precision_bound(0, 0, 0.05), "0 true positives of 0 predicted positives"),
        (lambda: precision_bound(3, 2, 0.05), "3 true positives of 2 predicted positives"),
        (lambda: precision_bound(0, 2, -0.1), "alpha is -0.1"),
        (lambda: samples_needed(0.0, 0.05), "the flip rate is 0.0"),
        (lambda: samples_needed(1.0, 0.05), "the flip rate is 1.0"),
        (lambda: samples_needed(0.1, 2.0), "alpha is 2.0"),
        (lambda: samples_needed(0.1, 0.05, -1), "-1 flips"),
        (lambda: retuned_bound(3, 2, 0.05), "3 flips of 2 samples"),
        (lambda: retuned_bound(0, 0, 0.05), "0 flips of 0 samples"),
        (lambda: retuned_bound(0, 1, 1.5), "alpha is 1.5"),
        (lambda: retuned_bound(0, 9, 0.05, points=3), "3 samples fix the threshold"),
        (lambda: mcnemar(-1, 2), "2 verdicts for the worse and -1 for the better"),
        (lambda: harm(-1, 2), "-1 verdicts for the worse and 2 for the better"),
        (lambda: harm(1, NAN), "1 verdicts for the worse and nan for the better"),
        (lambda: detectable_change(0.1, 0), "a discordance of 0.1 in 0 samples"),
        (lambda: detectable_change(1.1, 5), "a discordance of 1.1 in 5 samples"),
        (lambda: detectable_change(NAN, 5), "a discordance of nan in 5 samples"),
        (lambda: detectable_change(0.1, 5, alpha=0), "alpha is 0"),
        (lambda: detectable_change(0.1, 5, power=1), "the power is 1"),
        (lambda: forecast(TWO, np.zeros(3), 0.0), "2 logits of the reference and 3 deviations"),
        (lambda: forecast(TWO[:0], np.zeros(0), 0.0), "no samples"),
        (lambda: forecast(TWO, np.array([0, NAN]), 0.0), "the deviations hold NaN or infinity"),
        (lambda: forecast(array([1, NAN]), np.zeros(2), 0.0), "the reference's logits hold NaN"),
        (lambda: forecast(TWO, np.zeros(2), NAN), "the threshold is nan"),
        (lambda: forecast(array([2, 2]), np.zeros(2), 2.0), "the 2 logits nearest to the threshold"),
        (lambda: certificate(TWO, TWO[:1], 0.0, 0.05), "2 logits of the reference and 1 logits of"),
        (lambda: certificate(TWO[:0], TWO[:0], 0.0, 0.05), "no samples"),
        (lambda: certificate(array([1, NAN]), TWO, 0.0, 0.05), "the reference's logits hold NaN"),
        (lambda: certificate(TWO, TWO, math.inf, 0.05), "the threshold is inf"),
        (lambda: certificate(TWO, TWO, 0.0, 1.0), "alpha is 1.0"),
        (lambda: certificate(TWO, TWO, 0.0, 0.05, m=-1.0), "a margin of -1.0"),
        (lambda: certificate(TWO, TWO, 0.0, 0.05, m=NAN), "a margin of nan"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_its_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_only_the_100_nearest_need_a_width():
    """99 logits on the threshold and one beside it: a band."""
    reference = array([2.0] * 99 + [3.0])
    assert forecast(reference, np.ones(100), 2.0).half_width == 1.0
    with pytest.raises(ValueError, match="the 100 logits nearest to the threshold"):
        forecast(array([2.0] * 100 + [3.0]), np.ones(101), 2.0)
