"""Policies: against slow, obvious implementations, hand-worked cases, and simulated populations."""

import json
import math
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from scripts.bench.simulate_guarantees import PRECISION, guarantee_violations, true_precision
from scripts.case.rules import Rules
from scripts.verdicts import thresholds
from scripts.verdicts.bounds import precision_bound
from scripts.verdicts.exact_test import rejects
from scripts.verdicts.policies import NoGuarantee, bounded, choose, compared, guaranteed, widest_gap
from scripts.verdicts.thresholds import Unreachable, choose_threshold, is_positive

NINE_TENTHS = Fraction(9, 10)
HALF = Fraction(1, 2)


def array(values):
    return np.array(values, np.float32)


@pytest.fixture(params=[1, 3, 1 << 16], ids=lambda size: f"parts of {size}")
def parts(request, monkeypatch):
    """The same work in many parts, a few, and one."""
    monkeypatch.setattr(thresholds, "PART", request.param)


# ---- the slow, obvious implementations ------------------------------------------------------------


def slow_cuts(logits, labels):
    """(score, gap below, k, TP) of every cut, from the highest score down."""
    scores = sorted({float(z) for z in logits}, reverse=True)
    rows = []
    for score, below in zip(scores, [*scores[1:], -math.inf], strict=True):
        predicted = [int(y) for z, y in zip(logits, labels, strict=True) if float(z) >= score]
        rows.append((score, score - below, len(predicted), sum(predicted)))
    return rows


def slow_widest_gap(rows, precision, slack):
    """The row chosen, or None."""
    feasible = [row for row in rows if Fraction(row[3], row[2]) >= precision]
    if not feasible:
        return None
    most = max(row[3] for row in feasible)
    good = [row for row in feasible if row[3] >= (1 - Fraction(str(slack))) * most]
    return max(good, key=lambda row: (row[1] if row[1] < math.inf else 0.0, row[3], -row[2]))


def slow_guaranteed(rows, precision, confidence, k0):
    """The row chosen, or None."""
    chosen = None
    for row in rows:
        _, _, k, tp = row
        if k < k0:
            continue
        if binomtest(tp, k, float(precision), "greater").pvalue > 1 - confidence:
            break
        chosen = row
    return chosen


def slow_needed(rows, precision, confidence, k0):
    """(best precision, labelled positives or None) of the error."""
    positives = rows[-1][3]
    least = min(k0, math.ceil(positives / 2))
    best = max(Fraction(tp, k) for _, _, k, tp in rows if k >= least)
    if best <= precision:
        return float(best), None
    k = max(k for _, _, k, tp in rows if k >= least and Fraction(tp, k) == best)
    share, p = float(best), float(precision)
    for needed in range(k0, 10**6):
        if beta.cdf(p, share * needed, (1 - share) * needed + 1) <= 1 - confidence:
            return share, positives if needed <= k else math.ceil(Fraction(needed * positives, k))
    raise AssertionError("none found")


def slow_bounded(rows, precision, alpha):
    """The row chosen, or None."""
    good = [row for row in rows if precision_bound(row[3], row[2], alpha) >= float(precision)]
    most = max((row[3] for row in good), default=0)
    return min((row for row in good if row[3] == most), key=lambda row: row[2], default=None)


def random_cases(count, seed, most=60):
    """(logits, labels, random), many of them with ties, small, and with both classes."""
    random = np.random.default_rng(seed)
    made = 0
    while made < count:
        n = int(random.integers(2, most))
        labels = random.random(n) < random.choice([0.2, 0.5, 0.8])
        if labels.all() or not labels.any():
            continue
        logits = random.normal(size=n) * random.choice([0.5, 2.0]) + labels * random.choice(
            [0.0, 1.0, 3.0]
        )
        logits = np.round(logits) if random.random() < 0.4 else np.round(logits, 1)
        made += 1
        yield logits.astype(np.float32), labels, random


def check(found, row, rows, logits, labels, precision):
    """`found` is the threshold of the row, and says of it what is so."""
    score, _, k, tp = row
    feasible = [Fraction(r[3], r[2]) >= precision for r in reversed(rows)]
    runs = sum(now and not was for was, now in zip([False, *feasible], feasible, strict=False))
    low = max((float(z) for z in logits if float(z) < score), default=-math.inf)
    assert asdict(found) == {
        "logit": score - 1 if low == -math.inf else pytest.approx((low + score) / 2, abs=1e-12),
        "gap_low": low,
        "gap_high": score,
        "predicted_positives": k,
        "true_positives": tp,
        "precision": tp / k,
        "recall": tp / int(labels.sum()),
        "feasible_runs": runs,
        "best_precision": max(r[3] / r[2] for r in rows),
    }
    assert is_positive(logits, found.logit).sum() == k


# ---- the widest gap -----------------------------------------------------------------------------


def test_the_widest_gap_agrees_with_brute_force(parts):
    unreachable = lowered = 0
    for logits, labels, random in random_cases(500, seed=1):
        precision = Fraction(int(random.integers(1, 21)), 20)
        slack = float(random.choice([0.0, 0.005, 0.1, 0.3, 1.0]))
        rows = slow_cuts(logits, labels)
        row = slow_widest_gap(rows, precision, slack)
        if row is None:
            unreachable += 1
            with pytest.raises(Unreachable) as caught:
                widest_gap(logits, labels, precision, slack)
            with pytest.raises(Unreachable) as plain:
                choose_threshold(logits, labels, precision)
            assert str(caught.value) == str(plain.value)
            continue
        found = widest_gap(logits, labels, precision, slack)
        check(found, row, rows, logits, labels, precision)
        lowered += found.recall < choose_threshold(logits, labels, precision).recall
    assert unreachable > 20
    assert lowered > 50


def test_the_widest_gap_by_hand(parts):
    #         logit   9  8  4  3  2      precision 1, 1, 1, 1, 4/5; gaps 1, 4, 1, 1
    logits, labels = array([9, 8, 4, 3, 2]), array([1, 1, 1, 1, 0]) > 0
    assert widest_gap(logits, labels, NINE_TENTHS, 0.0).logit == 2.5
    assert widest_gap(logits, labels, NINE_TENTHS, 0.25).logit == 2.5  # 3 of 4: no wider
    assert widest_gap(logits, labels, NINE_TENTHS, 0.5).logit == 6.0
    assert widest_gap(logits, labels, NINE_TENTHS, 0.49).logit == 2.5


def test_equal_gaps_the_higher_recall_and_then_the_fewer_false_positives(parts):
    #         logit   5  4  3  2  1  all gaps 1: 3 of 3 positives with k = 3 and 4
    logits = array([5, 4, 3, 2, 1])
    found = widest_gap(logits, array([1, 1, 1, 0, 0]) > 0, HALF, 1.0)
    assert (found.true_positives, found.predicted_positives) == (3, 3)


def test_the_lowest_cut_is_taken_where_it_is_the_only_one(parts):
    found = widest_gap(array([2, 2, 2, 2]), array([1, 1, 1, 0]) > 0, Fraction(3, 4), 0.5)
    assert (found.gap_low, found.gap_high, found.logit) == (-math.inf, 2.0, 1.0)
    found = widest_gap(array([3, 2]), array([1, 0]) > 0, HALF, 1.0)
    assert found.logit == 2.5  # a gap of 1 against none


def test_a_slack_is_taken_as_it_is_written(parts):
    """0.995 * 200 positives are 199, whatever float64 makes of it; so for every tenth of a tenth."""
    for slack in (0.005, 0.01, 0.07, 0.29, 0.57):
        n = 200
        logits = np.arange(n, 0, -1, dtype=np.float32)  # the k-th highest is n + 1 - k
        allowed = n - round(slack * n)
        logits[:allowed] += 1000  # a wide gap below exactly the fewest that are allowed
        labels = np.append(np.ones(n, bool), False)
        found = widest_gap(np.append(logits, array([0])), labels, NINE_TENTHS, slack)
        assert found.true_positives == allowed
        logits[allowed - 1] -= 1000  # one fewer: out of reach
        found = widest_gap(np.append(logits, array([0])), labels, NINE_TENTHS, slack)
        assert found.true_positives == n


# ---- the guarantee ------------------------------------------------------------------------------


def test_the_guaranteed_threshold_agrees_with_brute_force(parts):
    chosen = needs = helpless = 0
    for logits, labels, random in random_cases(700, seed=2):
        precision = Fraction(int(random.integers(2, 20)), 20)
        confidence = float(random.choice([0.5, 0.8, 0.95]))
        k0 = int(random.choice([1, 3, 10, 30]))
        rows = slow_cuts(logits, labels)
        row = slow_guaranteed(rows, precision, confidence, k0)
        if row:
            chosen += 1
            found = guaranteed(logits, labels, precision, confidence, k0)
            check(found, row, rows, logits, labels, precision)
            continue
        with pytest.raises(NoGuarantee) as caught:
            guaranteed(logits, labels, precision, confidence, k0)
        best, needed = slow_needed(rows, precision, confidence, k0)
        assert (caught.value.best, caught.value.needed) == (best, needed)
        needs += needed is not None
        helpless += needed is None
    assert min(chosen, needs, helpless) > 80


def test_the_exact_test_agrees_with_scipy():
    """Near the border, where it matters, and far from it; and up to ten million."""
    random = np.random.default_rng(3)
    both = 0
    for p in (Fraction(1, 100), HALF, NINE_TENTHS, Fraction(999, 1000)):
        for alpha in (1e-6, 0.05, 0.5, 0.95):
            k = (10 ** random.uniform(0, 7, 300)).astype(np.int64)
            border = binom.isf(alpha, k, float(p)).astype(np.int64)
            tp = np.clip(border + random.integers(-3, 4, 300), 0, k)
            tp[::5] = random.integers(0, k[::5] + 1)
            tp[1::7] = k[1::7]
            tp[2::9] = 0
            wanted = binom.sf(tp - 1, k, float(p)) <= alpha
            found = rejects(tp, k, p, alpha)
            assert (found == wanted).all()
            both += 0 < wanted.sum() < 300
    assert both == 16
    assert not rejects(np.array([0, 3, 5]), np.array([5, 5, 5]), Fraction(1), 0.05).any()


def test_all_of_29_are_guaranteed_to_be_nine_tenths(parts):
    """0.9 ** 28 = 0.052 and 0.9 ** 29 = 0.047."""
    logits, labels = array(np.arange(40)), np.arange(40) >= 11
    found = guaranteed(logits, labels, NINE_TENTHS, 0.95, k0=29)
    # 29 of 30 give 0.9 ** 30 + 30 * 0.1 * 0.9 ** 29 = 0.18: stopped
    assert (found.predicted_positives, found.logit) == (29, 10.5)
    with pytest.raises(NoGuarantee):
        guaranteed(logits, labels, NINE_TENTHS, 0.95, k0=28)


@pytest.mark.parametrize(("k", "tp"), [(100, 96), (300, 279), (1000, 916)])
def test_what_certifies_nine_tenths(k, tp):
    for hits in (tp, tp - 1):
        logits = np.append(np.zeros(k, np.float32), np.full(k, -1, np.float32))
        labels = np.append(np.arange(k) < hits, np.zeros(k, bool))
        if hits == tp:
            assert guaranteed(logits, labels, NINE_TENTHS, 0.95, k).true_positives == tp
            assert bounded(logits, labels, NINE_TENTHS, 0.05).true_positives == tp
        else:
            with pytest.raises(NoGuarantee):
                guaranteed(logits, labels, NINE_TENTHS, 0.95, k)
            with pytest.raises(ValueError, match="lower bound"):
                bounded(logits, labels, NINE_TENTHS, 0.05)


def test_a_run_of_equal_logits_is_tested_at_its_end_only(parts):
    """At k = 29 all are right, but the run goes on for 11 more that are not."""
    logits = np.append(np.zeros(40, np.float32), array([-1]))
    with pytest.raises(NoGuarantee):
        guaranteed(logits, np.arange(41) < 29, NINE_TENTHS, 0.95, k0=29)
    found = guaranteed(logits, np.arange(41) < 40, NINE_TENTHS, 0.95, k0=29)
    assert (found.predicted_positives, found.logit) == (40, -0.5)


def test_it_stops_at_the_first_that_is_not_rejected(parts):
    """300 right, 60 wrong, then 5000 right: all of them would pass, and are not reached."""
    labels = np.concatenate([np.ones(300), np.zeros(60), np.ones(5000)]) > 0
    found = guaranteed(array(-np.arange(5360)), labels, NINE_TENTHS, 0.95)
    rows = [(k, 300) for k in range(300, 360)]
    last = max(k for k, tp in rows if binomtest(tp, k, 0.9, "greater").pvalue <= 0.05)
    assert (found.predicted_positives, found.feasible_runs) == (last, 2)
    assert found.recall < choose_threshold(array(-np.arange(5360)), labels, NINE_TENTHS).recall


def test_every_sample_may_be_called_positive(parts):
    labels = np.arange(200) != 150
    found = guaranteed(array(np.arange(200)), labels, NINE_TENTHS, 0.95)
    assert (found.gap_low, found.logit, found.predicted_positives) == (-math.inf, -1.0, 200)


def test_how_many_labelled_positives_would_do():
    """10 of 10 right: at a precision of 1, 29 predicted positives, which hold all the positives."""
    logits, labels = array(np.arange(20)), np.arange(20) >= 10
    with pytest.raises(NoGuarantee) as caught:
        guaranteed(logits, labels, NINE_TENTHS, 0.95, k0=5)
    assert str(caught.value) == (
        "no threshold can be guaranteed with this much data; about 29 labelled positives would do"
    )
    assert (caught.value.best, caught.value.needed) == (1.0, 29)
    with pytest.raises(NoGuarantee, match="about 100 labelled positives would do"):
        guaranteed(logits, labels, NINE_TENTHS, 0.95)  # k0 = 100 is more than there are


def test_where_more_data_will_not_help():
    logits = np.repeat(array([1, 0]), 500)
    labels = np.concatenate([np.arange(500) < 400, np.zeros(500, bool)])
    with pytest.raises(NoGuarantee) as caught:
        guaranteed(logits, labels, NINE_TENTHS, 0.95)
    assert str(caught.value) == (
        "no threshold can be guaranteed and more data will not help: with 100 predicted positives "
        "or more the highest precision is 0.8000, not above 0.9"
    )
    assert caught.value.needed is None


def test_where_a_later_begin_would_do():
    """The top 10 hold two wrong ones; all 500 hold two."""
    labels = np.concatenate([np.zeros(2), np.ones(498), np.zeros(100)]) > 0
    logits = array(-np.arange(600))
    with pytest.raises(NoGuarantee) as caught:
        guaranteed(logits, labels, NINE_TENTHS, 0.95, k0=10)
    assert str(caught.value) == (
        "no threshold can be guaranteed by a test that begins at 10 predicted positives; begun at "
        "500, other data of this size would do"
    )
    assert caught.value.needed == 498
    assert guaranteed(logits, labels, NINE_TENTHS, 0.95, k0=500).true_positives == 498


def test_where_the_begin_is_one_sample_short():
    """28 of 28 right prove nothing, 29 of 29 do."""
    labels = np.arange(60) < 29
    with pytest.raises(NoGuarantee, match="begun at 29, other data of this size would do"):
        guaranteed(array(-np.arange(60)), labels, NINE_TENTHS, 0.95, k0=28)


# ---- the guarantee is kept ----------------------------------------------------------------------

SETS = 300
BORDER = 1.28934  # where the population's precision is 0.9


def at_most(error):
    return SETS * error + 3 * math.sqrt(SETS * error * (1 - error))


def test_the_precision_of_the_population():
    assert true_precision(BORDER) == pytest.approx(0.9, abs=1e-6)
    random = np.random.default_rng(4)
    s = random.normal(0, 2, 2_000_000)
    labels = random.random(len(s)) < 1 / (1 + np.exp(-s))
    for t in (-30.0, -1.0, BORDER, 4.0):
        assert true_precision(t) == pytest.approx(labels[s >= t].mean(), abs=0.002)


@pytest.mark.parametrize(("confidence", "fewest"), [(0.95, 1), (0.8, 20), (0.5, 80)])
def test_the_guarantee_is_kept(confidence, fewest):
    violations, none = guarantee_violations(SETS, 2000, 5, confidence)
    assert fewest <= violations <= at_most(1 - confidence)  # used up, and not overdrawn
    assert none < SETS / 5


@pytest.mark.parametrize("k0", [100, 330, 430])
@pytest.mark.parametrize("error", [0.05, 0.3])
def test_the_guarantee_is_kept_with_ties(k0, error):
    """The highest run of equal logits that deserves no rejection falls short by a hair.

    About 280 samples of 2000 lie above it and 518 with it: from k0 = 330 on it is tested first.
    """
    step = BORDER * 0.9999 / 1.5
    assert 0.8998 < true_precision(1.5 * step) < PRECISION < true_precision(2.5 * step)

    def rule(logits, labels):
        return guaranteed(logits, labels, PRECISION, 1 - error, k0)

    violations, none = guarantee_violations(SETS, 2000, 6, 0, rule, step)
    assert SETS * error / 5 < violations <= at_most(error)
    assert (none > SETS / 4) == (k0 > 300)  # tested first, it mostly stops there


def test_the_simulation_tells_a_rule_without_a_guarantee():
    """That the highest recall has a precision of 0.9 here makes it less than 0.9 half of the time."""
    violations, none = guarantee_violations(
        SETS, 2000, 5, 0, lambda logits, labels: choose_threshold(logits, labels, PRECISION)
    )
    assert 0.4 * SETS < violations < 0.7 * SETS
    assert none == 0


def test_where_the_precision_is_flat_only_the_guarantee_is_kept():
    """Labels that do not depend on the logits, 89.99 % positive: every threshold is a violation."""
    random = np.random.default_rng(8)
    wrong = {"guaranteed": 0, "bounded": 0}
    for _ in range(SETS):
        logits, labels = array(random.normal(size=2000)), random.random(2000) < 0.8999
        for name in wrong:
            try:
                if name == "bounded":
                    bounded(logits, labels, NINE_TENTHS, 0.05)
                else:
                    guaranteed(logits, labels, NINE_TENTHS, 0.95)
            except ValueError:
                continue
            wrong[name] += 1
    assert 0 < wrong["guaranteed"] <= at_most(0.05)
    assert wrong["bounded"] > 2 * at_most(0.05)  # as its docstring says


# ---- bounded ------------------------------------------------------------------------------------


def test_bounded_agrees_with_brute_force(parts):
    chosen = none = 0
    for logits, labels, random in random_cases(500, seed=7):
        precision = Fraction(int(random.integers(2, 20)), 20)
        alpha = float(random.choice([0.05, 0.2, 0.7]))
        rows = slow_cuts(logits, labels)
        row = slow_bounded(rows, precision, alpha)
        if row:
            chosen += 1
            found = bounded(logits, labels, precision, alpha)
            check(found, row, rows, logits, labels, precision)
            continue
        none += 1
        best = max(r[3] / r[2] for r in rows)
        with pytest.raises(ValueError, match=f"the highest precision is {best:.4f}"):
            bounded(logits, labels, precision, alpha)
    assert min(chosen, none) > 100


# ---- the case's own policy ------------------------------------------------------------------------


def sampled(n=3000, seed=3):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, n).astype(np.float32)
    return logits, logits + random.normal(size=n) > 0


WANTED = {
    "max_recall": (Rules(), lambda z, y: choose_threshold(z, y, NINE_TENTHS)),
    "widest_gap": (Rules(policy="widest_gap", recall_slack=0.01),
                   lambda z, y: widest_gap(z, y, NINE_TENTHS, 0.01)),
    "wider": (Rules(policy="widest_gap", recall_slack=0.3),
              lambda z, y: widest_gap(z, y, NINE_TENTHS, 0.3)),
    "guarantee": (Rules(guarantee=0.99), lambda z, y: guaranteed(z, y, NINE_TENTHS, 0.99)),
    "guarantee 0.7": (Rules(guarantee=0.7), lambda z, y: guaranteed(z, y, NINE_TENTHS, 0.7)),
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_the_rules_of_the_case_choose(name):
    rules, wanted = WANTED[name]
    assert choose(*sampled(), NINE_TENTHS, rules) == wanted(*sampled())


def test_each_of_these_rules_chooses_another_threshold():
    found = {choose(*sampled(), NINE_TENTHS, rules).logit for rules, _ in WANTED.values()}
    assert len(found) == len(WANTED)


def test_a_guarantee_comes_before_a_policy():
    rules = Rules(policy="widest_gap", guarantee=0.99)
    assert choose(*sampled(), NINE_TENTHS, rules) == guaranteed(*sampled(), NINE_TENTHS, 0.99)


def test_what_the_rules_cannot_choose_is_refused():
    logits, labels = array([3, 2, 1, 0]), np.array([0, 1, 0, 1], np.uint8)
    for rules in (Rules(), Rules(policy="widest_gap")):
        with pytest.raises(Unreachable):
            choose(logits, labels, NINE_TENTHS, rules)
    with pytest.raises(NoGuarantee):
        choose(logits, labels, NINE_TENTHS, Rules(guarantee=0.95))


def test_the_policies_are_compared():
    z, y = sampled()
    found = compared(z, y, NINE_TENTHS, Rules(recall_slack=0.01, confidence=0.9))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    wanted = {
        "max_recall": choose_threshold(z, y, NINE_TENTHS),
        "widest_gap": widest_gap(z, y, NINE_TENTHS, 0.01),
        "bounded": bounded(z, y, NINE_TENTHS, 1 - 0.9),
        "guarantee": guaranteed(z, y, NINE_TENTHS, 0.9),
    }
    assert list(found) == list(wanted)
    for name, one in wanted.items():
        assert found[name] == {
            "logit": one.logit,
            "gap": one.gap_high - one.gap_low,
            "precision": one.precision,
            "recall": one.recall,
            "predicted_positives": one.predicted_positives,
            "true_positives": one.true_positives,
        }
    assert found["max_recall"]["recall"] >= found["widest_gap"]["recall"]
    assert found["max_recall"]["recall"] > found["guarantee"]["recall"]


def test_the_confidence_of_the_guarantee_is_the_one_that_is_compared():
    z, y = sampled()
    found = compared(z, y, NINE_TENTHS, Rules(guarantee=0.99, confidence=0.7))
    assert found["guarantee"]["logit"] == guaranteed(z, y, NINE_TENTHS, 0.99).logit
    assert found["bounded"]["logit"] == bounded(z, y, NINE_TENTHS, 1 - 0.99).logit
    other = compared(z, y, NINE_TENTHS, Rules(confidence=0.7))
    assert other["guarantee"]["logit"] < found["guarantee"]["logit"]


def test_what_a_policy_cannot_choose_has_a_reason():
    logits, labels = array([3, 2, 1, 0]), np.array([1, 1, 0, 0], np.uint8)
    found = compared(logits, labels, NINE_TENTHS, Rules())
    assert (found["max_recall"]["logit"], found["max_recall"]["gap"]) == (1.5, 1.0)
    for name, words in (("bounded", "no threshold's precision has a lower bound of 0.9"),
                        ("guarantee", "no threshold can be guaranteed")):  # fmt: skip
        assert list(found[name]) == ["reason"]
        assert found[name]["reason"].startswith(words)
    found = compared(logits, 1 - labels, NINE_TENTHS, Rules())
    for name in ("max_recall", "widest_gap"):
        assert found[name]["reason"].startswith("no threshold reaches a precision of 0.9")


def test_an_open_gap_has_no_width():
    logits, labels = np.zeros(1000, np.float32), np.arange(1000) % 25 > 0
    found = compared(logits, labels, NINE_TENTHS, Rules())
    assert [one["gap"] for one in found.values()] == [None] * 4
    json.dumps(found, allow_nan=False)


# ---- edges --------------------------------------------------------------------------------------

POLICIES = {
    "widest_gap": lambda logits, labels, p: widest_gap(logits, labels, p, 0.005),
    "guaranteed": lambda logits, labels, p: guaranteed(logits, labels, p, 0.95, 3),
    "bounded": lambda logits, labels, p: bounded(logits, labels, p, 0.05),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())


@every_policy
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([], [], "no samples"),
        ([1.0], [1], "1 of 1 labels are positive; both classes are needed"),
        ([1.0, 2.0], [0, 0], "0 of 2 labels are positive; both classes are needed"),
        ([1.0, math.nan], [1, 0], "NaN or infinity"),
        ([-math.inf, 0.0], [1, 0], "NaN or infinity"),
        ([1.0, 2.0], [1, 0, 1], "2 logits and 3 flags"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(parts, policy, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        policy(array(logits), np.array(labels, np.uint8), HALF)


@every_policy
def test_a_constant_classifier(parts, policy):
    """One cut: every sample is positive, with the precision of the positives' share."""
    logits, labels = np.full(1000, 2, np.float32), np.arange(1000) < 600
    found = policy(logits, labels, HALF)
    assert (found.precision, found.recall, found.logit) == (0.6, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.6000"):
        policy(logits, labels, NINE_TENTHS)


@every_policy
def test_perfect_separation(parts, policy):
    logits, labels = np.repeat(array([1, -1]), 100), np.repeat([True, False], 100)
    found = policy(logits, labels, NINE_TENTHS)
    assert (found.precision, found.recall, found.logit) == (1.0, 1.0, 0.0)


@every_policy
def test_one_positive(parts, policy):
    """On top it is found by the widest gap; one sample proves nothing."""
    logits, labels = array([3, 2, 1, 0]), np.array([1, 0, 0, 0], np.uint8)
    if policy is POLICIES["widest_gap"]:
        assert policy(logits, labels, NINE_TENTHS).logit == 2.5
    else:
        with pytest.raises(ValueError, match="no threshold"):
            policy(logits, labels, NINE_TENTHS)


@every_policy
@pytest.mark.parametrize("bad", [Fraction(0), Fraction(-1, 2), Fraction(11, 10)])
def test_a_precision_that_is_none_is_refused(policy, bad):
    with pytest.raises(ValueError, match=f"a precision of {float(bad):g}; it must be above 0"):
        policy(array([1, 2]), array([0, 1]) > 0, bad)


@every_policy
def test_a_precision_of_one(parts, policy):
    logits, labels = array(np.arange(10)), np.arange(10) >= 5
    if policy is POLICIES["widest_gap"]:
        assert policy(logits, labels, Fraction(1)).logit == 4.5
    else:  # no number of samples proves it
        with pytest.raises(ValueError, match="no threshold"):
            policy(logits, labels, Fraction(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: widest_gap(z, y, HALF, -0.1), "a recall slack of -0.1"),
        (lambda z, y: widest_gap(z, y, HALF, 1.1), "a recall slack of 1.1"),
        (lambda z, y: widest_gap(z, y, HALF, math.nan), "a recall slack of nan"),
        (lambda z, y: guaranteed(z, y, HALF, 1.0), "a confidence of 1.0"),
        (lambda z, y: guaranteed(z, y, HALF, 0.0), "a confidence of 0.0"),
        (lambda z, y: guaranteed(z, y, HALF, math.nan), "a confidence of nan"),
        (lambda z, y: guaranteed(z, y, HALF, 0.9, 0), "begins at 0 predicted positives"),
        (lambda z, y: bounded(z, y, HALF, 0.0), "alpha is 0.0"),
        (lambda z, y: bounded(z, y, HALF, math.nan), "alpha is nan"),
    ],
)
def test_nonsense_is_refused_with_its_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call(array([1, 2]), array([0, 1]) > 0)
