"""What is claimed of new data: against a second, slow implementation, planted flips, simulations."""

import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from scripts.case.rules import Rules
from scripts.data.parts import calibration_rows, folds, half, three
from scripts.verdicts import claims as module
from scripts.verdicts.claims import Facts, Given, allowed, claims, splits

NINE_TENTHS = Fraction(9, 10)
HALF = Fraction(1, 2)


def array(values):
    return np.array(values, np.float32)


def population(n, seed=0, noise=0.8):
    """Reference logits and labels: the higher the logit, the more often positive."""
    random = np.random.default_rng(seed)
    s = random.normal(0, 2, n).astype(np.float32)
    return s, s + random.normal(0, noise, n) > 0


def given(s, y, threshold=None, precision=NINE_TENTHS, rules=None, **more):
    if threshold is None:
        threshold = slow_threshold(s.tolist(), y.tolist(), precision)
    return Given(array(s), np.array(y, bool), threshold, precision, rules or Rules(), **more)


def same(g, **more):
    """A variant that answers as the reference does."""
    return Facts(g.reference.copy(), g.threshold, **more)


def flipped(g, rows, **more):
    """A variant whose verdicts differ in these rows, by any threshold, and nowhere else."""
    z = g.reference.copy()
    z[rows] = np.where(z[rows] >= g.threshold, -50, 50) + np.arange(len(rows)) / 100
    return Facts(z, g.threshold, **more)


def one(g, facts):
    return claims(g, {"onnx_fp16": facts})["variants"]["onnx_fp16"]


# ---- the slow, obvious implementation ---------------------------------------------------------------


def slow_threshold(s, y, precision):
    """Most true positives, then the fewest others; the middle of the gap below; None: unreachable."""
    best = None
    for score in sorted(set(s)):
        above = [label for z, label in zip(s, y, strict=True) if z >= score]
        tp = sum(above)
        if tp and Fraction(tp, len(above)) >= precision:
            best = max(best or (-1, 0, 0.0), (tp, -len(above), score))
    if best is None:
        return None
    below = [z for z in s if z < best[2]]
    return best[2] - 1 if not below else max(below) + (best[2] - max(below)) / 2


def slow_gap(s, t):
    below, above = [z for z in s if z < t], [z for z in s if z >= t]
    return min(above) - max(below) if below else 1.0


def wrong(z, right, t):
    return sum((a >= t) != v for a, v in zip(z, right, strict=True))


def slow_retune(z, right, t, gap):
    """The fewest flips; t where it gives them; else the nearest interval half as wide as the widest."""
    scores = sorted(set(z))
    edges = [scores[0] - gap, *scores, scores[-1] + gap]
    options = [(wrong(z, right, high), low, high) for low, high in pairwise(edges)]
    fewest = min(flips for flips, _, _ in options)
    if wrong(z, right, t) == fewest:
        return t
    good = [(low, high) for flips, low, high in options if flips == fewest]
    near = min(good, key=lambda i: max(i[0] - t, t - i[1]))
    if near[1] - near[0] < max(high - low for low, high in good) / 2:
        near = max(good, key=lambda i: i[1] - i[0])
    return (
        (near[0] + near[1]) / 2 if near[0] > scores[0] - gap else near[0] + (near[1] - near[0]) / 2
    )


def slow_moved(z, s, y, t):
    """By half of them, where the other half then has fewer flips."""
    right = [a >= t for a in s]
    if wrong(z, right, t) == 0:
        return t
    tune = half(np.array(y, bool)).tolist()
    first, rest = ([i for i in range(len(y)) if tune[i] is kind] for kind in (True, False))
    other = slow_retune([z[i] for i in first], [right[i] for i in first], t, slow_gap(s, t))
    on_rest = [z[i] for i in rest], [right[i] for i in rest]
    return other if wrong(*on_rest, other) < wrong(*on_rest, t) else t


def slow_verdicts(g, z):
    """Cross-fitting: (held-out verdicts of the reference, of the variant, both lists of thresholds)."""
    fold = folds(g.labels, None, 5).tolist()
    s, y, z = g.reference.tolist(), g.labels.tolist(), z.tolist()
    right, own, chose, tuned = [None] * len(s), [None] * len(s), [], []
    for k in range(5):
        rest = [i for i in range(len(s)) if fold[i] != k]
        t = slow_threshold([s[i] for i in rest], [y[i] for i in rest], g.precision)
        if t is None:
            return None
        u = slow_moved([z[i] for i in rest], [s[i] for i in rest], [y[i] for i in rest], t)
        chose.append(t)
        tuned.append(u)
        for i in range(len(s)):
            if fold[i] == k:
                right[i], own[i] = s[i] >= t, z[i] >= u
    return right, own, chose, tuned


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_cross_fitting_agrees_with_the_slow_implementation(spread):
    """Whole-numbered logits, so many are equal; a shift, so that thresholds are re-tuned."""
    random = np.random.default_rng(int(10 * spread))
    refused = retuned = ties = 0
    for _ in range(150):
        n = int(random.integers(12, 60))
        s = random.integers(-6, 7, n)
        y = s + random.normal(0, random.choice([2, 6]), n) > 0
        if min(y.sum(), n - y.sum()) < 5:
            continue
        precision = random.choice([Fraction(1, 2), Fraction(3, 4), NINE_TENTHS])
        deployed, own = random.normal(0, 1, 2)
        g = given(s, y, deployed, precision)
        z = array(np.round(s + random.normal(spread, spread, n)))
        wanted = slow_verdicts(g, z)
        if wanted is None:
            refused += 1
            with pytest.raises(ValueError, match=r"without fold \d of 5, no threshold reaches"):
                claims(g, {"onnx_fp16": Facts(z, own)})
            continue
        right, verdicts, chose, tuned = wanted
        everything = claims(g, {"onnx_fp16": Facts(z, own), "onnx_fp32": same(g)})
        found = everything["variants"]["onnx_fp16"]
        assert everything["thresholds"] == pytest.approx(chose, rel=1e-12)
        assert found["thresholds"] == pytest.approx(tuned, rel=1e-12)
        check(g, z, own, found, everything, right, verdicts)
        retuned += chose != tuned
        ties += len(set(s.tolist())) < n
    assert refused > 5
    assert ties > 100
    assert (retuned > 5) == (spread > 0)


def check(g, z, own, found, everything, right, verdicts):
    """Every number, counted one by one; the bounds by scipy.stats, at alpha shared by two."""
    n, y, alpha = len(right), g.labels.tolist(), 0.05 / 2
    flips = sum(
        verdicts[i] != right[i] or (z[i] >= own) != (g.reference[i] >= g.threshold)
        for i in range(n)
    )
    k, tp = sum(verdicts), sum(a and b for a, b in zip(verdicts, y, strict=True))
    worse = sum(v == b != w for v, w, b in zip(right, verdicts, y, strict=True))
    better = sum(w == b != v for v, w, b in zip(right, verdicts, y, strict=True))
    upper = 1.0 if flips == n else beta.ppf(1 - alpha, flips + 1, n - flips)
    assert (found["samples"], found["flips"], found["positives"]) == (n, flips, sum(right))
    assert found["one_verdict"] == (sum(right) in (0, n))
    assert found["bounded"] == {"flips": flips, "samples": n}
    assert found["flip_rate_upper"] == pytest.approx(upper, rel=1e-9)
    precision = found["precision"]
    assert (precision["predicted_positives"], precision["true_positives"]) == (k, tp)
    assert precision["value"] == (tp / k if k else None)
    if k:
        assert precision["lower"] == pytest.approx(
            beta.ppf(alpha, tp, k - tp + 1) if tp else 0, rel=1e-9
        )
    assert found["recall"] == tp / sum(y)
    assert (found["mcnemar"]["worse"], found["mcnemar"]["better"]) == (worse, better)
    changed = worse + better
    p = binomtest(worse, changed, alternative="greater").pvalue if changed else 1.0
    assert found["mcnemar"]["p_harm"] == pytest.approx(p, rel=1e-9)
    k, tp = sum(right), sum(a and b for a, b in zip(right, y, strict=True))
    reference = everything["reference"]["precision"]
    assert (reference["predicted_positives"], reference["true_positives"]) == (k, tp)
    if tp:
        assert reference["lower"] == pytest.approx(beta.ppf(0.05, tp, k - tp + 1), rel=1e-9)


def test_a_fold_has_no_part_in_its_own_thresholds():
    """Logits and labels of a fold may be anything: the thresholds that judge it stay."""
    s, y = population(400)
    g = given(s, y, precision=Fraction(4, 5))
    random = np.random.default_rng(5)
    z = s + random.normal(0.3, 0.3, 400).astype(np.float32)
    before = claims(g, {"onnx_fp16": Facts(z, 0.0)})
    fold = folds(y, None, 5)
    own = before["variants"]["onnx_fp16"]["thresholds"]
    assert own != before["thresholds"], "re-tuned"
    for k in range(5):
        other, moved = g.reference.copy(), z.copy()
        other[fold == k] += random.normal(0, 1, (fold == k).sum()).astype(np.float32)
        moved[fold == k] = random.normal(0, 2, (fold == k).sum())
        after = claims(given(other, y, g.threshold, g.precision), {"onnx_fp16": Facts(moved, 0.0)})
        assert after["thresholds"][k] == before["thresholds"][k]
        assert after["variants"]["onnx_fp16"]["thresholds"][k] == own[k]
        assert after["thresholds"] != before["thresholds"], "the other folds' do not"


# ---- the scheme -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "scheme", "rounds"), [(4999, "cross-fitting", 5), (5000, "three parts", 1)])  # fmt: skip
def test_three_parts_from_5000_samples_on(n, scheme, rounds):
    s, y = population(n)
    g = given(s, y, 0.5)
    found = claims(g, {"onnx_fp16": same(g)})
    assert found["scheme"] == scheme
    assert found["folds"] == (5 if rounds == 5 else None)
    assert len(found["thresholds"]) == rounds
    assert len(found["variants"]["onnx_fp16"]["thresholds"]) == rounds
    assert found["samples"] == (n if rounds == 5 else int((three(y) == 2).sum()))


def test_three_parts_choose_re_tune_and_judge_apart(monkeypatch):
    monkeypatch.setattr(module, "PLENTY", 100)
    s, y = population(400)
    g = given(s, y, precision=Fraction(4, 5))
    z = s + np.random.default_rng(1).normal(0.5, 0.3, 400).astype(np.float32)
    part = three(y)
    found = claims(g, {"onnx_fp16": Facts(z, 0.0)})
    (t,), (u,) = found["thresholds"], found["variants"]["onnx_fp16"]["thresholds"]
    chose, tune, judged = part == 0, part == 1, part == 2
    assert t == slow_threshold(s[chose].tolist(), y[chose].tolist(), Fraction(4, 5))
    gap = slow_gap(s[chose].tolist(), t)
    inside = half(y[tune])
    zs, right = z[tune], s[tune] >= t
    other = slow_retune(zs[inside].tolist(), right[inside].tolist(), t, gap)
    assert u == pytest.approx(other), "re-tuned on the second part alone"
    assert u != t
    row = found["variants"]["onnx_fp16"]
    away = ((z >= u) != (s >= t)) | ((z >= 0) != (s >= g.threshold))
    assert row["samples"] == judged.sum()
    assert row["flips"] == (away & judged).sum() > 0
    assert row["mcnemar"]["worse"] + row["mcnemar"]["better"] == (((z >= u) != (s >= t)) & judged).sum()  # fmt: skip


@pytest.mark.parametrize("plenty", [10**6, 100])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_parts_of_every_round_are_apart(monkeypatch, plenty, grouped):
    monkeypatch.setattr(module, "PLENTY", plenty)
    s, y = population(300)
    groups = np.arange(300) // 4 if grouped else None
    g = given(s, y, 0.5, groups=groups)
    times = np.zeros(300, int)
    for chose, tune, judged in splits(g):
        assert chose.any() and tune.any() and judged.any()
        assert not (judged & (chose | tune)).any()
        if grouped:
            assert not set(groups[judged]) & (set(groups[chose]) | set(groups[tune]))
        times += judged
    assert set(times.tolist()) == ({1} if plenty > 300 else {0, 1})


# ---- who judges whom --------------------------------------------------------------------------------


@pytest.mark.parametrize("plenty", [10**6, 100])
def test_planted_flips_come_back_in_their_variant(monkeypatch, plenty):
    monkeypatch.setattr(module, "PLENTY", plenty)
    s, y = population(600, noise=0.1)
    g = given(s, y)
    rows = np.flatnonzero(np.abs(s - g.threshold) > 1)[[3, 50, 90, 200, 201]]
    judged = np.ones(600, bool) if plenty > 600 else three(y) == 2
    found = claims(g, {"onnx_fp32": same(g), "onnx_fp16": flipped(g, rows)})["variants"]
    assert found["onnx_fp32"]["flips"] == 0
    assert found["onnx_fp16"]["flips"] == judged[rows].sum()
    assert 0 < judged[rows].sum() <= 5


def test_flips_are_united_over_conditions_less_the_noise_of_the_reference():
    s, y = population(600, noise=0.1)
    clear = np.flatnonzero(np.abs(s - 0) > 1)
    rows, away, noise = clear[[1, 2, 3]], clear[[3, 4, 5, 6]], clear[[1, 4, 99]]
    g = given(s, y, noise=frozenset(noise.tolist()))
    facts = flipped(g, rows, elsewhere=frozenset(away.tolist()))
    assert one(g, facts)["flips"] == 4  # {1, 2, 3, 4, 5, 6} less {1, 4}
    assert one(given(s, y), facts)["flips"] == 6
    assert one(g, same(g, elsewhere=frozenset(noise.tolist())))["flips"] == 0


def test_a_flip_with_the_deployed_thresholds_counts():
    s, y = population(600, noise=0.1)
    g = given(s, y)
    t = float(np.sort(s)[400])
    between = ((s >= g.threshold) != (s >= t)).sum()
    assert between > 50
    assert one(g, Facts(g.reference, t))["flips"] == between


@pytest.mark.parametrize("plenty", [10**6, 100])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("calibrated", "repaired"), [(True, False), (False, True), (True, True)])
def test_what_made_a_variant_does_not_judge_it(monkeypatch, plenty, size, calibrated, repaired):
    """Flips in every sample that calibrated or repaired it, and in none of the others: none counts."""
    monkeypatch.setattr(module, "PLENTY", plenty)
    s, y = population(600, noise=0.1)
    groups = np.arange(600) // size if size > 1 else None
    g = given(s, y, groups=groups)
    used = np.zeros(600, bool)
    if calibrated:
        used[calibration_rows(y, groups)] = True
        used |= np.isin(np.arange(600) // size, (np.arange(600) // size)[used])
    if repaired:
        used |= half(y, groups)
    elsewhere = frozenset(np.flatnonzero(used).tolist())
    facts = same(g, elsewhere=elsewhere, calibrated=calibrated, repaired=repaired)
    assert (allowed(g, facts) == ~used).all()
    judged = (three(y, groups) == 2) if plenty < 600 else np.ones(600, bool)
    row = one(g, facts)
    assert (row["samples"], row["flips"]) == ((judged & ~used).sum(), 0)
    assert one(g, same(g, elsewhere=elsewhere))["flips"] == (judged & used).sum()


def test_groups_are_the_units():
    s, y = population(600, noise=0.1)
    groups = np.arange(600) // 3
    g = given(s, y, groups=groups)
    row = one(g, same(g, elsewhere=frozenset({30, 31, 32, 33, 90})))
    assert (row["samples"], row["flips"]) == (600, 5)
    assert row["groups"] == {"count": 200, "flipped": 3}
    assert row["bounded"] == {"flips": 3, "samples": 200}
    assert row["flip_rate_upper"] == pytest.approx(beta.ppf(0.95, 4, 197))
    assert row["samples_wanted"] > 200
    assert "groups" not in one(given(s, y), same(g))


def test_traffic_is_judged_with_the_deployed_thresholds():
    s, y = population(600, noise=0.1)
    more = np.linspace(-3, 3, 1001).astype(np.float32)
    z = more.copy()
    z[[100, 900]] = 9, -9
    z[950] = np.nan
    g = given(s, y, traffic=more)
    row = one(g, same(g, traffic=z, elsewhere=frozenset({7})))
    assert row["traffic"] == {"samples": 1001, "flips": 3}
    assert row["bounded"] == {"flips": 4, "samples": 1601}
    assert row["flip_rate_upper"] == pytest.approx(beta.ppf(0.95, 5, 1597))
    assert row["flips"] == 1
    grouped = given(s, y, traffic=more, groups=np.arange(600) // 3)
    row = one(grouped, same(g, traffic=z, elsewhere=frozenset({5, 7, 8})))
    assert row["bounded"] == {"flips": 3 + 2, "samples": 200 + 1001}
    assert "traffic" not in one(given(s, y), same(g, traffic=z))


def test_alpha_is_shared_by_the_variants_that_are_compared():
    s, y = population(600, noise=0.1)
    g = given(s, y, rules=Rules(confidence=0.9))
    for count in (1, 4):
        found = claims(g, {f"variant {i}": same(g) for i in range(count)})
        assert found["variants_compared"] == count
        assert found["alpha"] == pytest.approx(0.1 / count)
        row = found["variants"]["variant 0"]
        assert row["flip_rate_upper"] == pytest.approx(1 - (0.1 / count) ** (1 / 600))
        assert row["samples_wanted"] == math.ceil(math.log(0.1 / count) / math.log(0.999))
    assert claims(g, {})["variants"] == {}


def test_the_policy_of_the_case_chooses_each_threshold():
    s, y = population(600)
    plain = claims(given(s, y, 0.5), {})["thresholds"]
    for rules in (Rules(policy="widest_gap", recall_slack=0.2), Rules(guarantee=0.8)):
        found = claims(given(s, y, 0.5, rules=rules), {})["thresholds"]
        assert found != plain
        assert all(a >= b for a, b in zip(found, plain, strict=True)), "never at a higher recall"


# ---- what cannot be claimed, and what is strange ------------------------------------------------------


def plain(value):
    """Nothing but what JSON holds: no NumPy type, no infinity, no NaN."""
    if isinstance(value, dict):
        return all(type(key) is str and plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(plain(one) for one in value)
    return value is None or type(value) in (str, bool, int) or (
        type(value) is float and math.isfinite(value)
    )  # fmt: skip


STRANGE = {
    "like the reference": lambda s: s,
    "NaN": lambda s: np.where(np.arange(len(s)) % 7, s, np.nan),
    "infinite": lambda s: np.where(np.arange(len(s)) % 7, s, np.inf),
    "minus infinity everywhere": lambda s: np.full(len(s), -np.inf),
    "constant": lambda s: np.zeros(len(s)),
    "the other way round": lambda s: -s,
    "huge": lambda s: s * 1e37,
    "hardly away": lambda s: np.nextafter(array(s), np.float32(9)),
}


@pytest.mark.parametrize("plenty", [10**6, 100])
@pytest.mark.parametrize("name", STRANGE)
def test_the_claims_hold_what_json_holds(monkeypatch, plenty, name):
    monkeypatch.setattr(module, "PLENTY", plenty)
    s, y = population(300)
    more = np.linspace(-3, 3, 50).astype(np.float32)
    g = given(s, y, groups=np.arange(300) // 2, traffic=more)
    facts = Facts(array(STRANGE[name](s)), g.threshold, traffic=array(STRANGE[name](more)))
    found = claims(g, {"onnx_int8": facts})
    assert plain(found)
    json.dumps(found, allow_nan=False)
    assert not plain({"a": np.float64(1)}) and not plain([math.inf]) and not plain({1: 1})


def test_logits_that_are_not_finite_are_negative_and_have_no_margin():
    s, y = population(300)
    g = given(s, y)
    z = g.reference.copy()
    bad = np.flatnonzero(s >= g.threshold)[:4]
    z[bad] = np.nan, np.inf, -np.inf, np.nan
    row = one(g, Facts(z, g.threshold))
    assert row["flips"] >= 4
    assert row["forecast"] is None
    assert row["certificate"]["min_safety_factor"] == 0
    assert row["thresholds"] == claims(g, {})["thresholds"], "nothing is re-tuned on those"


@pytest.mark.parametrize("plenty", [10**6, 100])
@pytest.mark.parametrize("row", [0, 299])
def test_a_reference_that_is_not_finite_is_refused(monkeypatch, plenty, row):
    monkeypatch.setattr(module, "PLENTY", plenty)
    s, y = population(300)
    g = given(s, y)
    for bad in (np.nan, np.inf):
        g.reference[row] = bad
        with pytest.raises(ValueError, match="logits hold NaN or infinity"):
            claims(g, {"onnx_fp16": same(g)})


def test_perfect_separation():
    y = np.arange(100) >= 50
    g = given(np.where(y, 3, -3) + np.linspace(0, 0.5, 100), y)
    row = one(g, same(g))
    assert (row["flips"], row["positives"], row["recall"]) == (0, 50, 1.0)
    assert row["precision"]["lower"] == pytest.approx(0.05 ** (1 / 50))
    assert row["one_verdict"] is False
    assert row["certificate"]["min_safety_factor"] is None, "nothing deviates"


@pytest.mark.parametrize("plenty", [10**6, 100])
def test_a_constant_classifier_gives_one_verdict(monkeypatch, plenty):
    """All logits equal; nine in ten are positive, so calling all positive is precise enough."""
    monkeypatch.setattr(module, "PLENTY", plenty)
    y = np.arange(200) % 20 > 0
    g = given(np.full(200, 1.5), y)
    row = one(g, same(g))
    assert row["one_verdict"] is True
    assert (row["flips"], row["positives"]) == (0, row["samples"])
    assert plain(row)


def test_all_logits_at_the_threshold_have_no_forecast():
    y = np.arange(200) % 20 > 0
    row = one(given(np.full(200, 1.5), y, 1.5), Facts(array(np.full(200, 1.5)), 1.5))
    assert row["forecast"] is None
    assert plain(row)


@pytest.mark.parametrize(
    ("s", "y", "message"),
    [
        ([], [], "no samples: nothing can be claimed"),
        ([1], [1], "there are 1 positive samples, and 5 folds need one each"),
        ([1], [0], "there are 0 positive samples, and 5 folds need one each"),
        (range(50), [0] * 49 + [1], "there are 1 positive samples, and 5 folds need one each"),
        (range(50), [1] * 47 + [0] * 3, "there are 3 negative samples, and 5 folds need one each"),
        ([0] * 50, [0, 1] * 25, "without fold 1 of 5, no threshold reaches a precision of 0.9; the "
                                "highest is 0.5000, for logits >= 0, with a recall of 1.0000"),
        (range(50), [1] * 25 + [0] * 25, "without fold 1 of 5, no threshold reaches"),
    ],
)  # fmt: skip
def test_what_cannot_be_claimed_is_a_sentence(s, y, message):
    s = array(list(s))
    g = Given(s, np.array(y, bool), 0.5, NINE_TENTHS, Rules())
    with pytest.raises(ValueError) as caught:
        claims(g, {"onnx_fp16": Facts(s, 0.5)})
    assert str(caught.value).startswith(message)


def test_a_fold_without_a_threshold_is_named():
    """The precise ones all lie in the fourth fold: the others cannot do without it."""
    random = np.random.default_rng(0)
    y = np.arange(100) % 2 > 0
    fold = folds(y, None, 5)
    s = random.normal(0, 1, 100)
    s[(fold == 3) & y] += 20
    s[np.flatnonzero((fold != 3) & ~y)[:4]] += 10  # else the highest alone would do
    g = given(s, y)
    with pytest.raises(ValueError, match=r"^without fold 4 of 5, no threshold reaches a precision"):
        claims(g, {"onnx_fp16": same(g)})


def test_a_fold_without_a_guarantee_is_named():
    s, y = population(300)
    g = given(s, y, 0.5, rules=Rules(guarantee=0.95))
    with pytest.raises(ValueError, match=r"^without fold 1 of 5, no threshold can be guaranteed"):
        claims(g, {"onnx_fp16": same(g)})


def test_three_parts_without_a_threshold_say_which(monkeypatch):
    monkeypatch.setattr(module, "PLENTY", 50)
    s = np.zeros(60)
    y = np.arange(60) % 2 > 0
    g = Given(array(s), y, 0.5, NINE_TENTHS, Rules())
    with pytest.raises(ValueError, match=r"^on the part that fixes it, no threshold reaches"):
        claims(g, {"onnx_fp16": same(g)})


def test_one_group_leaves_no_sample_to_judge(monkeypatch):
    monkeypatch.setattr(module, "PLENTY", 100)
    s, y = population(300, noise=0.1)
    g = given(s, y, groups=np.zeros(300, np.int64))
    found = claims(g, {"onnx_fp16": same(g)})
    assert found["samples"] == 0
    assert found["variants"]["onnx_fp16"]["samples"] == 0
    assert found["reference"]["precision"]["lower"] is None
    assert plain(found)


def test_one_group_cannot_be_folded():
    s, y = population(300)
    g = given(s, y, groups=np.zeros(300, np.int64))
    with pytest.raises(ValueError, match="there are 1 groups with a positive sample"):
        claims(g, {"onnx_fp16": same(g)})


def test_nothing_is_left_of_a_tiny_set_that_was_repaired():
    """Ten samples: each fold judges two, and the half that repaired it judges none."""
    y = np.arange(10) % 2 > 0
    g = given(np.where(y, 3, -3) + np.arange(10) / 100, y)
    assert one(g, same(g, repaired=True))["samples"] == (~half(y)).sum() == 4


# ---- the guarantee ------------------------------------------------------------------------------


def test_the_bound_of_the_flip_rate_is_kept(monkeypatch):
    """200 test sets drawn from a population whose flip rate is known for every pair of thresholds."""
    monkeypatch.setattr(module, "PLENTY", 200)
    random = np.random.default_rng(7)
    s, y = population(20_000, seed=1)
    z = (s + random.normal(0.3, 0.4, len(s))).astype(np.float32)
    sets, below, pointwise, moved = 200, 0, 0, 0
    for _ in range(sets):
        rows = random.integers(0, len(s), 400)
        # deployed thresholds that never flip: what is counted is the scheme's alone
        g = Given(s[rows], y[rows], 1e3, Fraction(4, 5), Rules())
        found = claims(g, {"onnx_fp16": Facts(z[rows], 1e3)})
        row = found["variants"]["onnx_fp16"]
        (t,), (u,) = found["thresholds"], row["thresholds"]
        true = ((z >= u) != (s >= t)).mean()
        moved += u != t
        below += row["flip_rate_upper"] < true
        pointwise += row["flips"] / row["samples"] < true
    assert moved > 50
    assert below <= sets * 0.05 + 3 * math.sqrt(sets * 0.05 * 0.95)
    assert pointwise > 60, "the rate that was seen is no bound, and the test would tell"
