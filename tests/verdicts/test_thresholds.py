"""Thresholds: against slow, obvious implementations, hand-worked cases, and scikit-learn."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from scripts.verdicts import thresholds
from scripts.verdicts.thresholds import Unreachable, choose_threshold, middle, retune, sort_keys

NINE_TENTHS = Fraction(9, 10)
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def array(values):
    return np.array(values, np.float32)


def verdicts_at(logits, threshold):
    """In float64, as the definition has it: NumPy would round the threshold to float32."""
    return np.array([float(z) >= threshold for z in logits])


@pytest.fixture(params=[1, 3, 1 << 16], ids=lambda size: f"parts of {size}")
def parts(request, monkeypatch):
    """The same work in many parts, a few, and one."""
    monkeypatch.setattr(thresholds, "PART", request.param)


# ---- the slow, obvious implementations ------------------------------------------------------------


def slow_choice(logits, labels, precision):
    """(low, high, predicted, tp, runs) of the best cut or None, and (best precision, at, recall)."""
    scores = sorted({float(z) for z in logits})
    rows = []
    for score in scores:
        predicted = [int(y) for z, y in zip(logits, labels, strict=True) if float(z) >= score]
        rows.append((score, len(predicted), sum(predicted)))
    positives = int(sum(labels))
    feasible = [Fraction(tp, k) >= precision for _, k, tp in rows]
    runs = sum(now and not was for was, now in zip([False, *feasible], feasible, strict=False))
    top = max(Fraction(tp, k) for _, k, tp in rows)
    at, _, hits = next(row for row in rows if Fraction(row[2], row[1]) == top)
    best = (float(top), at, hits / positives)
    allowed = [row for row, good in zip(rows, feasible, strict=True) if good]
    if not allowed:
        return None, best
    most = max(tp for _, _, tp in allowed)
    score, k, tp = min((row for row in allowed if row[2] == most), key=lambda row: row[1])
    below = [other for other in scores if other < score]
    return (max(below, default=-math.inf), score, k, tp, runs), best


def slow_retune(logits, verdicts, threshold, gap):
    """The fewest flips, and (logit, low, high) by the rules, from every interval of thresholds."""
    scores = sorted({float(z) for z in logits})
    edges = [scores[0] - max(gap, 1e-6), *scores, scores[-1] + max(gap, 1e-6)]
    intervals = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        flips = sum(
            (float(z) > low if i else True) != v for z, v in zip(logits, verdicts, strict=True)
        )
        holds = (low < threshold or i == 0) and (threshold <= high or i == len(edges) - 2)
        intervals.append((flips, low, high, holds))
    fewest = min(flips for flips, *_ in intervals)
    best = [(low, high, holds) for flips, low, high, holds in intervals if flips == fewest]
    for low, high, holds in best:
        if holds:
            return fewest, (threshold, low, high)
    widest = max(high - low for low, high, _ in best)
    low, high, _ = min(best, key=lambda one: max(one[0] - threshold, threshold - one[1]))
    if high - low < widest / 2:
        low, high, _ = next(one for one in best if one[1] - one[0] == widest)
    return fewest, ((low + high) / 2, low, high)


def random_cases(count, seed):
    """(logits, flags, random), many of them with ties, small, and with both classes."""
    random = np.random.default_rng(seed)
    made = 0
    while made < count:
        n = int(random.integers(2, 24))
        flags = random.random(n) < random.choice([0.2, 0.5, 0.8])
        if flags.all() or not flags.any():
            continue
        spread = random.choice([0.5, 2.0, 50.0])
        logits = random.normal(size=n) * spread + flags * random.choice([0.0, 1.0, 3.0])
        if random.random() < 0.6:
            logits = np.round(logits)
        made += 1
        yield logits.astype(np.float32), flags, random


# ---- choosing -----------------------------------------------------------------------------------


def test_choosing_agrees_with_brute_force(parts):
    found_runs, unreachable = set(), 0
    for logits, labels, random in random_cases(1200, seed=1):
        precision = Fraction(int(random.integers(1, 21)), 20)
        wanted, (best, at, recall) = slow_choice(logits, labels, precision)
        if wanted is None:
            unreachable += 1
            with pytest.raises(Unreachable) as caught:
                choose_threshold(logits, labels, precision)
            assert (caught.value.best, caught.value.at, caught.value.recall) == (best, at, recall)
            continue
        low, high, predicted, tp, runs = wanted
        found = choose_threshold(logits, labels, precision)
        assert (found.gap_low, found.gap_high) == (low, high)
        assert (found.predicted_positives, found.true_positives) == (predicted, tp)
        assert (found.precision, found.recall) == (tp / predicted, tp / int(labels.sum()))
        assert found.feasible_runs == runs
        assert found.best_precision == best
        assert low < found.logit < high
        assert verdicts_at(logits, found.logit).sum() == predicted
        found_runs.add(runs)
    assert unreachable > 50  # the comparison has compared both outcomes
    assert found_runs >= {1, 2, 3}


def test_a_case_worked_by_hand(parts):
    #         logit   4  3  2  1  0 -1
    #         label   1  1  0  1  0  0     precision 1, 1, 2/3, 3/4, 3/5, 1/2
    found = choose_threshold(array([4, 3, 2, 1, 0, -1]), array([1, 1, 0, 1, 0, 0]) > 0, NINE_TENTHS)
    assert found == thresholds.Threshold(
        logit=2.5,
        gap_low=2.0,
        gap_high=3.0,
        predicted_positives=2,
        true_positives=2,
        precision=1.0,
        recall=2 / 3,
        feasible_runs=1,
        best_precision=1.0,
    )


def test_the_lowest_island_has_the_highest_recall(parts):
    #         logit   5  4  3  2  1   0    precision 1, 1/2, 2/3, 3/4, 4/5, 2/3
    #         label   1  0  1  1  1   0
    labels = array([1, 0, 1, 1, 1, 0]) > 0
    found = choose_threshold(array([5, 4, 3, 2, 1, 0]), labels, Fraction(3, 4))
    assert (found.gap_low, found.gap_high, found.recall) == (0, 1, 1.0)
    assert found.feasible_runs == 2


def test_with_the_same_recall_the_fewest_false_positives(parts):
    #         logit   3  2  1  0 -1 -2 ...   at 1/2 all of 3, 2, 1, 0 are feasible; 2 has both hits
    labels = array([1, 1, 0, 0, 0]) > 0
    found = choose_threshold(array([3, 2, 1, 0, -1]), labels, Fraction(1, 2))
    assert (found.gap_low, found.gap_high, found.precision) == (1, 2, 1.0)
    assert found.logit == 1.5


def test_equal_logits_are_never_separated(parts):
    logits = array([2, 1, 1, 1, 0])
    found = choose_threshold(logits, array([1, 1, 1, 0, 0]) > 0, Fraction(3, 4))
    assert (found.predicted_positives, found.true_positives) == (4, 3)
    with pytest.raises(Unreachable):
        choose_threshold(array([1, 1, 1]), array([1, 1, 0]) > 0, NINE_TENTHS)


def test_nine_of_ten_is_exactly_nine_tenths(parts):
    logits, labels = np.append(np.zeros(10, np.float32), array([-1])), np.arange(11) < 9
    found = choose_threshold(logits, labels, Fraction("0.9"))
    assert (found.true_positives, found.predicted_positives) == (9, 10)


def test_feasible_is_decided_in_whole_numbers(parts):
    """9 of 10 is below 0.900000005, and float32 holds the same number for both."""
    wanted = Fraction("0.900000005")
    assert np.float32(9 / 10) >= np.float32(wanted)
    logits, labels = np.zeros(10, np.float32), np.arange(10) < 9
    with pytest.raises(Unreachable):
        choose_threshold(logits, labels, wanted)
    assert choose_threshold(logits, labels, Fraction("0.89999999")).true_positives == 9


@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_precision_reached_to_the_last_sample(tenths):
    for times in (1, 3, 7, 29):
        labels = np.arange(10 * times) < tenths * times
        logits = np.zeros(10 * times, np.float32)
        found = choose_threshold(logits, labels, Fraction(f"0.{tenths}"))
        assert found.true_positives == tenths * times
        with pytest.raises(Unreachable):
            choose_threshold(logits, labels, Fraction(f"0.{tenths}") + Fraction(1, 10**9))


def test_agrees_with_the_curve_of_scikit_learn(parts):
    random = np.random.default_rng(3)
    for _ in range(30):
        labels = random.random(300) < 0.4
        logits = np.round(random.normal(size=300) + labels * 1.5, 1).astype(np.float32)
        precision, recall, _ = precision_recall_curve(labels, logits)
        good = precision[:-1] >= 0.8 - 1e-12
        if not good.any():
            continue
        found = choose_threshold(logits, labels, Fraction(4, 5))
        assert found.recall == pytest.approx(recall[:-1][good].max())
        of_those = good & (recall[:-1] == recall[:-1][good].max())
        assert found.precision == pytest.approx(precision[:-1][of_those].max())
        assert found.best_precision == pytest.approx(precision[:-1].max())


def test_unreachable_gives_the_highest_that_is_reached(parts):
    #         logit   3  2  1  0      precision 0, 1/2, 2/3, 1/2
    labels = array([0, 1, 1, 0]) > 0
    with pytest.raises(Unreachable) as caught:
        choose_threshold(array([3, 2, 1, 0]), labels, NINE_TENTHS)
    assert (caught.value.best, caught.value.at, caught.value.recall) == (2 / 3, 1.0, 1.0)
    assert str(caught.value) == (
        "no threshold reaches a precision of 0.9; the highest is 0.6667, "
        "for logits >= 1, with a recall of 1.0000"
    )


def test_all_logits_equal(parts):
    found = choose_threshold(array([2, 2, 2, 2]), array([1, 1, 1, 0]) > 0, Fraction(3, 4))
    assert found.gap_low == -math.inf
    assert found.gap_high == 2.0
    assert found.logit < 2.0
    assert math.isfinite(found.logit)
    assert (found.precision, found.recall) == (0.75, 1.0)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([], [], "no samples"),
        ([1.0], [1], "1 of 1 labels are positive; both classes are needed"),
        ([1.0, 2.0], [0, 0], "0 of 2 labels are positive; both classes are needed"),
        ([1.0, math.nan], [1, 0], "NaN or infinity"),
        ([1.0, math.inf], [1, 0], "NaN or infinity"),
        ([-math.inf, 0.0], [1, 0], "NaN or infinity"),
        ([1.0, 2.0], [1, 0, 1], "2 logits and 3 flags"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(parts, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        choose_threshold(array(logits), np.array(labels, np.uint8), NINE_TENTHS)


def test_minus_zero_is_zero(parts):
    """A cut between them would separate equal logits."""
    with pytest.raises(Unreachable) as caught:
        choose_threshold(array([0.0, -0.0]), array([1, 0]) > 0, NINE_TENTHS)
    assert caught.value.best == 0.5
    found = choose_threshold(array([-0.0, 0.0, -1]), array([1, 1, 0]) > 0, NINE_TENTHS)
    assert (found.predicted_positives, found.logit) == (2, -0.5)
    assert retune(array([0.0, -0.0]), array([1, 0]) > 0, 5.0, 1.0).flips == 1


def test_negative_logits(parts):
    found = choose_threshold(array([-9, -8, -7, -1]), array([0, 0, 1, 1]) > 0, NINE_TENTHS)
    assert (found.gap_low, found.gap_high, found.logit) == (-8, -7, -7.5)


def test_the_ends_of_float32(parts):
    logits = array([-LARGEST, -1, -SMALLEST, 0, SMALLEST, 1, LARGEST])
    for first in range(1, len(logits)):
        labels = np.arange(len(logits)) >= first
        found = choose_threshold(logits, labels, Fraction(1))
        assert (found.gap_low, found.gap_high) == (logits[first - 1], logits[first])
        assert found.gap_low < found.logit < found.gap_high
        again = retune(logits, labels, 1e39, 1.0)
        assert again.flips == 0
        assert (verdicts_at(logits, again.logit) == labels).all()


def test_neighbours_in_float32_are_told_apart(parts):
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    found = choose_threshold(array([low, high]), np.array([False, True]), Fraction(1))
    assert float(low) < found.logit < float(high)
    assert verdicts_at([low, high], found.logit).tolist() == [False, True]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(1.0, 2.0, 1.5), (-3.0, -1.0, -2.0), (-math.inf, 2.0, 1.0), (-LARGEST, LARGEST, 0.0)],
)
def test_the_middle(low, high, wanted):
    assert middle(low, high) == wanted


def test_the_middle_of_neighbours_in_float64_calls_the_upper_one_positive():
    high = math.nextafter(1.0, 2.0)
    assert middle(1.0, high) == high


def test_keys_are_in_the_order_of_the_logits():
    logits = array([3, -1, 0, -0.0, LARGEST, -LARGEST, SMALLEST, -SMALLEST])
    flags = np.ones(len(logits), bool)
    keys = sort_keys(logits, flags)
    back = [thresholds._logit(keys, i) for i in range(len(keys))]
    assert back == sorted(float(z) for z in logits)
    assert (keys & 1).all()


# ---- re-tuning ----------------------------------------------------------------------------------


def test_retuning_agrees_with_brute_force(parts):
    kept = moved = 0
    for logits, verdicts, random in random_cases(1200, seed=2):
        threshold = float(random.normal())
        if random.random() < 0.3:
            threshold = float(random.choice(logits))
        gap = float(random.choice([0.0, 0.5, 3.0]))
        fewest, (logit, low, high) = slow_retune(logits, verdicts, threshold, gap)
        found = retune(logits, verdicts, threshold, gap)
        assert found.flips == fewest
        assert (found.interval_low, found.interval_high) == (low, high)
        assert found.logit == pytest.approx(logit, abs=1e-12)
        assert (verdicts_at(logits, found.logit) != verdicts).sum() == fewest
        kept += found.logit == threshold
        moved += found.logit != threshold
    assert kept > 50
    assert moved > 50


def test_every_threshold_of_the_interval_does_the_same():
    for logits, verdicts, _ in random_cases(200, seed=5):
        found = retune(logits, verdicts, 0.1, 1.0)
        inside = [found.interval_high, math.nextafter(found.interval_low, math.inf)]
        for t in [*inside, (found.interval_low + found.interval_high) / 2]:
            assert (verdicts_at(logits, t) != verdicts).sum() == found.flips


def test_an_optimal_threshold_is_kept_to_the_last_bit(parts):
    threshold = 0.1 + 0.2
    found = retune(array([-1, 0, 1, 2]), np.array([0, 0, 1, 1], bool), threshold, 1.0)
    assert found.logit == threshold
    assert (found.flips, found.interval_low, found.interval_high) == (0, 0.0, 1.0)


def test_the_nearest_interval_when_it_is_wide_enough(parts):
    # one flip at each cut marked: 0 | 1 (width 1), 3 | 5 (width 2); in force 9
    logits, verdicts = array([0, 1, 3, 5]), np.array([0, 1, 0, 1], bool)
    found = retune(logits, verdicts, 9.0, 1.0)
    assert (found.flips, found.logit) == (1, 4.0)
    found = retune(logits, verdicts, -9.0, 1.0)  # the near one is half as wide: taken
    assert (found.flips, found.logit) == (1, 0.5)


def test_the_widest_interval_when_the_nearest_is_narrow(parts):
    logits, verdicts = array([0, 0.5, 3, 5]), np.array([0, 1, 0, 1], bool)
    found = retune(logits, verdicts, -9.0, 1.0)
    assert (found.flips, found.logit, found.interval_low, found.interval_high) == (1, 4.0, 3.0, 5.0)


def test_separable_and_the_width_of_the_separation(parts):
    found = retune(array([0, 1, 4, 6]), np.array([0, 0, 1, 1], bool), 9.0, 1.0)
    assert (found.gap, found.crossing, found.flips, found.logit) == (3.0, None, 0, 2.5)


def test_not_separable_and_the_crossing_pair(parts):
    #        sample    0  1  2  3  4
    logits = array([5, 2, 4, 1, 3])
    verdicts = np.array([1, 1, 0, 0, 1], bool)
    found = retune(logits, verdicts, 0.0, 1.0)
    assert found.gap == 2.0 - 4.0
    assert found.crossing == (1, 2)  # the lowest positive, the highest negative
    assert found.flips == 1


def test_a_tie_across_the_boundary_is_not_separable(parts):
    found = retune(array([1, 2, 2, 3]), np.array([0, 0, 1, 1], bool), 9.0, 1.0)
    assert (found.gap, found.crossing, found.flips) == (0.0, (2, 1), 1)


def test_the_crossing_pair_is_what_it_says(parts):
    for logits, verdicts, _ in random_cases(300, seed=6):
        found = retune(logits, verdicts, 0.0, 1.0)
        assert found.gap == float(logits[verdicts].min()) - float(logits[~verdicts].max())
        assert (found.crossing is None) == (found.gap > 0) == (found.flips == 0)
        if found.crossing:
            positive, negative = found.crossing
            assert verdicts[positive] and logits[positive] == logits[verdicts].min()
            assert not verdicts[negative] and logits[negative] == logits[~verdicts].max()


@pytest.mark.parametrize(("verdict", "threshold"), [(True, 9.0), (False, -9.0)])
def test_one_verdict_only_leaves_an_open_interval(parts, verdict, threshold):
    logits = array([1, 2, 3])
    verdicts = np.full(3, verdict)
    found = retune(logits, verdicts, threshold, 0.5)
    assert found.flips == 0
    assert found.logit == (0.75 if verdict else 3.25)  # half the gap beyond the end
    assert (found.gap, found.crossing) == (math.inf, None)
    assert (verdicts_at(logits, found.logit) == verdicts).all()
    kept = retune(logits, verdicts, -5.0 if verdict else 5.0, 0.5)
    assert kept.logit == (-5.0 if verdict else 5.0)


@pytest.mark.parametrize("size", [1e3, 1e9, 1e12, LARGEST])
def test_all_negative_verdicts_on_large_logits(parts, size):
    logits = array([size / 2, size])
    found = retune(logits, np.array([False, False]), 0.0, 0.5)
    assert found.flips == 0
    assert not verdicts_at(logits, found.logit).any()


def test_one_sample(parts):
    for verdict in (True, False):
        found = retune(array([2.0]), np.array([verdict]), 2.0 if verdict else 3.0, 1.0)
        assert (found.flips, found.logit) == (0, 2.0 if verdict else 3.0)
        assert retune(array([2.0]), np.array([not verdict]), found.logit, 1.0).flips == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(parts, bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        retune(array([1, bad]), np.array([True, False]), 0.0, 1.0)


def test_any_increasing_distortion_is_repaired_in_full(parts):
    random = np.random.default_rng(7)
    reference = random.normal(size=500).astype(np.float32)
    verdicts = verdicts_at(reference, 0.25)
    bent = np.tanh(reference.astype(np.float64) / 2) * 3 - 0.7
    found = retune(bent.astype(np.float32), verdicts, 0.25, 0.01)
    assert found.flips == 0
    assert (verdicts_at(bent.astype(np.float32), found.logit) == verdicts).all()
