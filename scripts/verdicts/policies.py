"""Other choices of a threshold than the highest recall: the widest gap, a guarantee, a bound.

Pure functions on arrays. As in `thresholds`, a cut is described by how many samples lie above it,
never separates equal logits, and the threshold is the middle of the open gap below the cut.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from scripts.case.rules import Rules
from scripts.verdicts import thresholds
from scripts.verdicts.exact_test import rejects
from scripts.verdicts.thresholds import Flags, Keys, Logits, Threshold, Unreachable

Labels = NDArray[np.bool_ | np.uint8]
Cuts = tuple[Keys, Keys, Keys]  # index of the lowest positive; true and predicted positives


class NoGuarantee(ValueError):
    """No threshold can be guaranteed; `needed` labelled positives would do (None: no number)."""

    def __init__(self, message: str, best: float, needed: int | None) -> None:
        self.best, self.needed = best, needed
        super().__init__(f"no threshold can be guaranteed {message}")


def choose(logits: Logits, labels: Labels, precision: Fraction, rules: Rules) -> Threshold:
    """The threshold by the case's own policy. Raises `Unreachable`, `NoGuarantee` or ValueError."""
    if rules.guarantee is not None:
        return guaranteed(logits, labels, precision, rules.guarantee)
    if rules.policy == "widest_gap":
        return widest_gap(logits, labels, precision, rules.recall_slack)
    return thresholds.choose_threshold(logits, labels, precision)


def compared(
    logits: Logits, labels: Labels, precision: Fraction, rules: Rules
) -> dict[str, dict[str, object]]:
    """What each policy would choose and cost on these samples: policy -> figures, or the reason."""
    confidence = rules.guarantee or rules.confidence
    policies: dict[str, Callable[[], Threshold]] = {
        "max_recall": lambda: thresholds.choose_threshold(logits, labels, precision),
        "widest_gap": lambda: widest_gap(logits, labels, precision, rules.recall_slack),
        "bounded": lambda: bounded(logits, labels, precision, 1 - confidence),
        "guarantee": lambda: guaranteed(logits, labels, precision, confidence),
    }
    found: dict[str, dict[str, object]] = {}
    for name, policy in policies.items():
        try:
            one = policy()
        except ValueError as error:
            found[name] = {"reason": str(error)}
            continue
        low = one.gap_low if one.gap_low > -np.inf else None
        found[name] = {
            "logit": one.logit,
            "gap": None if low is None else one.gap_high - low,
            "precision": one.precision,
            "recall": one.recall,
            "predicted_positives": one.predicted_positives,
            "true_positives": one.true_positives,
        }
    return found


def widest_gap(
    logits: Logits, labels: Labels, precision: Fraction, recall_slack: float
) -> Threshold:
    """The threshold in the widest gap among those that cost little recall.

    logits (n,) float32, labels (n,) 1 = positive. Of the cuts with TP * den >= num * k, in whole
    numbers, and a recall of at least (1 - recall_slack) times the highest of theirs: the one
    farthest from the next lower logit. Equal widths: the highest recall, then the fewest false
    positives. The cut below which no logit lies counts as width 0. Raises `Unreachable`; ValueError
    unless 0 <= recall_slack <= 1 and 0 < precision <= 1.
    """
    if not 0 <= recall_slack <= 1:
        raise ValueError(f"a recall slack of {recall_slack}; it must lie between 0 and 1")
    keys, hits_from = _sorted(logits, labels, precision)
    runs, most = _feasible(keys, hits_from, precision)
    if not most:
        best, at, tp = thresholds._best_precision(keys, hits_from)
        raise Unreachable(precision, best, thresholds._logit(keys, at), tp / int(hits_from[0]))
    least = ceil((1 - Fraction(str(float(recall_slack)))) * most)
    smallest, _ = _predicted(keys)
    parts = np.flatnonzero(
        _reaches(hits_from[:-1], smallest, precision) & (hits_from[:-1] >= least)
    )
    chosen = (-1.0, 0, 0)  # width, TP, cut
    for cuts, hits, predicted in _cuts(keys, hits_from, parts):
        good = (hits >= least) & _reaches(hits, predicted, precision)
        if not good.any():
            continue
        cuts, hits = cuts[good], hits[good]
        widths = np.where(cuts > 0, _values(keys[cuts]) - _values(keys[cuts - 1]), 0.0)
        top = np.lexsort((cuts, hits, widths))[-1]
        chosen = max(chosen, (float(widths[top]), int(hits[top]), int(cuts[top])))
    return _threshold(keys, hits_from, chosen[2], runs)


def guaranteed(
    logits: Logits, labels: Labels, precision: Fraction, confidence: float, k0: int = 100
) -> Threshold:
    """The lowest threshold whose precision on unseen samples is >= `precision`, with `confidence`.

    logits (n,) float32, labels (n,) 1 = positive. Learn then Test (Angelopoulos et al. 2021), fixed
    sequence: for k = k0, k0 + 1, ... predicted positives, "the precision is `precision` or less" is
    rejected while P(Bin(k, precision) >= TP) <= 1 - confidence; the last k rejected is the cut.
    It is wrong with probability at most 1 - confidence where the population's precision rises with
    the threshold: given the next lower logit, the top k are independent draws from the law above
    it. k0 must be fixed before the data is seen.

    Ties: only cuts between different logits are tested. That is the same sequence, over all
    thresholds u from the top: those inside a run of equal logits call the same samples positive.
    The first u that deserves no rejection belongs to the population, and given how many samples lie
    above it these are independent draws. Where fewer than k0 do, the first test is at the end of
    the k0-th logit's run: that few samples lie above this run makes, with a rising precision, the
    hits only fewer and the p-value larger.

    Raises `NoGuarantee`; ValueError unless 0 < confidence < 1, k0 > 0 and 0 < precision <= 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}; it must lie between 0 and 1")
    if not k0 > 0:
        raise ValueError(f"a test that begins at {k0} predicted positives; at least 1 is needed")
    keys, hits_from = _sorted(logits, labels, precision)
    n, delta = len(keys), float(1 - Fraction(str(float(confidence))))
    _, largest = _predicted(keys)
    # a part passes whole where its fewest hits would do among its most predicted positives
    open_parts = ~rejects(hits_from[1:], largest, precision, delta) & (largest >= k0)
    chosen = 0
    for cuts, hits, predicted in _cuts(keys, hits_from, np.flatnonzero(open_parts)[::-1]):
        failed = ~rejects(hits, predicted, precision, delta) & (predicted >= k0)
        if failed.any():
            last = keys[cuts[failed][-1]]  # the first that failed, from the top
            chosen = int(np.searchsorted(keys, ((last >> 1) + 1) << 1))
            break
    if n - chosen < k0:
        raise _no_guarantee(keys, hits_from, precision, delta, k0)
    return _threshold(keys, hits_from, chosen, _feasible(keys, hits_from, precision)[0])


def bounded(logits: Logits, labels: Labels, precision: Fraction, alpha: float) -> Threshold:
    """The highest recall whose lower bound of the precision is >= `precision`: NOT a guarantee.

    logits (n,) float32, labels (n,) 1 = positive. The lowest cut with bounds.precision_bound(TP, k,
    alpha) >= precision; with the same recall, the fewest false positives. That bound holds for a
    cut fixed beforehand, and this one is the luckiest of many on the same data: its true precision
    may be below `precision` more often than alpha, by far where the precision hardly changes with
    the threshold. `guaranteed` is the valid form. ValueError where
    there is none, and unless 0 < alpha < 1 and 0 < precision <= 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    keys, hits_from = _sorted(logits, labels, precision)
    smallest, _ = _predicted(keys)
    # a part may hold one where its most hits would do among as few predicted positives as there are
    most = hits_from[:-1]
    some = rejects(most, np.maximum(most, smallest), precision, alpha)
    for cuts, hits, predicted in _cuts(keys, hits_from, np.flatnonzero(some)):
        passed = rejects(hits, predicted, precision, alpha)
        if passed.any():
            positive = keys[thresholds._next(keys, int(cuts[np.argmax(passed)]), 1)]
            lowest = int(np.searchsorted(keys, (positive >> 1) << 1))
            return _threshold(keys, hits_from, lowest, _feasible(keys, hits_from, precision)[0])
    best, at, _ = thresholds._best_precision(keys, hits_from)
    raise ValueError(
        f"no threshold's precision has a lower bound of {float(precision):g} at alpha {alpha:g}; "
        f"the highest precision is {best:.4f}, with {len(keys) - at} predicted positives"
    )


def _sorted(logits: Logits, labels: Labels, precision: Fraction) -> tuple[Keys, Keys]:
    """The sorted keys; the positives from each part's first sample on, and 0 beyond the last."""
    if not 0 < precision <= 1:
        raise ValueError(f"a precision of {float(precision):g}; it must be above 0 and at most 1")
    keys = thresholds.sort_keys(logits, labels)
    ones = thresholds._ones(keys)
    positives = int(ones.sum())
    if positives in (0, len(keys)):
        raise ValueError(f"{positives} of {len(keys)} labels are positive; both classes are needed")
    return keys, positives - np.concatenate([[0], np.cumsum(ones)])


def _predicted(keys: Keys) -> tuple[Keys, Keys]:
    """The fewest and the most predicted positives of any cut, for each part."""
    starts = np.array([part.start for part in thresholds._parts(len(keys))])
    return len(keys) - np.append(starts[1:], len(keys)) + 1, len(keys) - starts


def _cuts(keys: Keys, hits_from: Keys, chosen: Iterable[int]) -> Iterator[Cuts]:
    """Every cut that can be made in the chosen parts, from the lowest logit of each up."""
    parts = list(thresholds._parts(len(keys)))
    for j in chosen:
        valid, hits, predicted = thresholds._counts(keys, parts[j], int(hits_from[j]))
        at = np.flatnonzero(valid)
        if len(at):
            yield parts[j].start + at, hits[at], predicted[at]


def _reaches(hits: Keys, predicted: Keys, precision: Fraction) -> Flags:
    """TP / k >= precision, in whole numbers."""
    return hits * precision.denominator >= predicted * precision.numerator


def _feasible(keys: Keys, hits_from: Keys, precision: Fraction) -> tuple[int, int]:
    """Intervals of cuts that reach the precision, and the most TP of any such cut; 0, 0 if none."""
    smallest, largest = _predicted(keys)
    some = _reaches(hits_from[:-1], smallest, precision)
    every = _reaches(hits_from[1:], largest, precision)
    runs, most, was = 0, 0, False
    for j in range(len(some)):
        was = was and bool(some[j])
        if not some[j] or (every[j] and was):
            continue
        for _, hits, predicted in _cuts(keys, hits_from, [j]):
            good = _reaches(hits, predicted, precision)
            most = most or int((hits * good).max())
            runs += int(np.count_nonzero(good[1:] & ~good[:-1])) + bool(good[0] and not was)
            was = bool(good[-1])
    return runs, most


def _threshold(keys: Keys, hits_from: Keys, cut: int, runs: int) -> Threshold:
    """The middle of the gap below a cut, and what it does."""
    high = thresholds._logit(keys, cut)
    low = thresholds._logit(keys, cut - 1) if cut else -np.inf
    tp, k = int(thresholds._ones(keys[cut:]).sum()), len(keys) - cut
    best, _, _ = thresholds._best_precision(keys, hits_from)
    t, recall = thresholds.middle(low, high), tp / int(hits_from[0])
    return Threshold(t, low, high, k, tp, tp / k, recall, runs, best)


def _values(keys: Keys) -> NDArray[np.float64]:
    """The logits packed in the keys."""
    bits = thresholds._ordered((keys >> 1).astype(np.int32))
    return bits.view(np.float32).astype(np.float64)


def _no_guarantee(
    keys: Keys, hits_from: Keys, precision: Fraction, delta: float, k0: int
) -> NoGuarantee:
    """The error, with the labelled positives that would do at the best precision seen.

    Seen with k0 predicted positives or more, or half of the positives where that is fewer: with few
    labels the top k0 cannot be precise. As many predicted positives are needed as let the exact
    test reject at that precision, and the share of the positives that they take.
    """
    from scipy.special import betainc

    positives, p = int(hits_from[0]), float(precision)
    least = min(k0, (positives + 1) // 2)
    best, k, tp = -1.0, 0, 0
    for _, hits, predicted in _cuts(keys, hits_from, range(len(hits_from) - 1)):
        ratio = np.where(predicted >= least, hits / predicted, -1.0)
        top = int(np.argmax(ratio))
        best, k, tp = max((best, k, tp), (float(ratio[top]), int(predicted[top]), int(hits[top])))
    if Fraction(tp, k) <= precision:
        return NoGuarantee(
            f"and more data will not help: with {least} predicted positives or more the highest "
            f"precision is {best:.4f}, not above {p:g}", best, None,
        )  # fmt: skip
    low, high = 0, 1
    while betainc(best * high, (1 - best) * high + 1, p) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        half = (low + high) // 2
        rejected = betainc(best * half, (1 - best) * half + 1, p) <= delta
        low, high = (low, half) if rejected else (half, high)
    high = max(high, k0)
    if high <= k:  # a later cut alone would have passed: it is the first step that failed
        return NoGuarantee(
            f"by a test that begins at {k0} predicted positives; begun at {k}, other data of this "
            "size would do", best, positives,
        )  # fmt: skip
    needed = ceil(Fraction(high * positives, k))
    return NoGuarantee(
        f"with this much data; about {needed} labelled positives would do", best, needed
    )
