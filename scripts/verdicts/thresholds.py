"""The numerics of thresholds: choosing one for a wanted precision, re-tuning one to a reference.

All pure functions on arrays. A threshold is a logit t; the verdict is positive where logit >= t.
A cut is described by how many samples lie above it; it never separates equal logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Flags = NDArray[np.bool_]
Keys = NDArray[np.int64]
PART = 1 << 16  # samples worked on at a time


def is_positive(logits: Logits, threshold: float) -> Flags:
    """The verdicts: logit >= threshold, and finite. logits (n,) float32.

    Compared in float64: against a Python float, NumPy would round the threshold to float32, and so
    onto one of two neighbouring logits that it lies between.
    """
    return np.isfinite(logits) & (logits >= np.float64(threshold))


@dataclass(frozen=True)
class Threshold:
    """A chosen threshold and what it does on the samples that chose it."""

    logit: float
    gap_low: float  # the nearest logit below; -inf where there is none
    gap_high: float  # the lowest logit that is still positive
    predicted_positives: int
    true_positives: int
    precision: float
    recall: float
    feasible_runs: int  # intervals of thresholds that reach the precision
    best_precision: float  # the highest precision any threshold reaches


class Unreachable(ValueError):
    """No threshold reaches the precision; `best` is the highest that one does reach."""

    def __init__(self, wanted: Fraction, best: float, at: float, recall: float) -> None:
        self.best, self.at, self.recall = best, at, recall
        super().__init__(
            f"no threshold reaches a precision of {float(wanted):g}; the highest is {best:.4f}, "
            f"for logits >= {at:.6g}, with a recall of {recall:.4f}"
        )


def sort_keys(logits: Logits, flags: NDArray[np.bool_ | np.uint8]) -> Keys:
    """Logit and flag packed into one sortable int64, ascending by logit.

    The float32's bits, mapped to keep their order, stand above; the flag is the lowest bit.
    -0.0 and 0.0 are the same logit. Raises ValueError on NaN and infinity.
    """
    if len(logits) != len(flags):
        raise ValueError(f"{len(logits)} logits and {len(flags)} flags")
    if not len(logits):
        raise ValueError("no samples: there is nothing to choose a threshold from")
    keys = np.empty(len(logits), np.int64)
    for part in _parts(len(logits)):
        z = np.asarray(logits[part], np.float32)
        if not np.isfinite(z).all():
            raise ValueError("the logits hold NaN or infinity")
        keys[part] = _ordered((z + np.float32(0)).view(np.int32))
        keys[part] <<= 1
        keys[part] |= np.asarray(flags[part]).view(np.uint8)
    keys.sort()
    return keys


def _ordered(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bits of float32 as whole numbers in the same order, and back: it is its own inverse."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _parts(n: int) -> Iterator[slice]:
    """0..n in pieces that stay in the processor's cache, so that no large array is made."""
    for start in range(0, n, PART):
        yield slice(start, min(start + PART, n))


def _starts(keys: Keys, part: slice) -> Flags:
    """Whether each key of the part begins a run of equal logits: where a cut may be made."""
    before = keys[part.start - 1] if part.start else -1 - keys[0]
    z = keys[part] >> 1
    return np.diff(z, prepend=before >> 1) != 0


def _logit(keys: Keys, i: int) -> float:
    """The logit packed in key i."""
    return float(_ordered(np.array([keys[i] >> 1], np.int32)).view(np.float32)[0])


def choose_threshold(
    logits: Logits, labels: NDArray[np.bool_ | np.uint8], precision: Fraction
) -> Threshold:
    """The threshold with the highest recall among those with at least `precision`.

    logits (n,) float32, labels (n,) 1 = positive. A cut is feasible when TP * den >= num * k in
    whole numbers. Several with the same recall: the fewest false positives. The threshold is the
    middle of the open gap below the lowest positive logit, in float64. Raises `Unreachable`.
    """
    keys = sort_keys(logits, labels)
    n = len(keys)
    ones = _ones(keys)
    positives = int(ones.sum())
    if positives in (0, n):
        raise ValueError(f"{positives} of {n} labels are positive; both classes are needed")
    num, den = precision.numerator, precision.denominator
    hits_from = positives - np.concatenate([[0], np.cumsum(ones)])
    runs, chosen, was = 0, -1, False
    for j, part in enumerate(_parts(n)):  # ascending: the cut at i calls samples i..n-1 positive
        most, fewest = int(hits_from[j]), int(hits_from[j + 1])
        if most * den < (n - part.stop + 1) * num:  # not feasible anywhere in this part
            was = False
            continue
        if fewest * den >= (n - part.start) * num and was:  # feasible everywhere in it
            continue
        valid, hits, predicted = _counts(keys, part, most)
        feasible = hits[valid] * den >= predicted[valid] * num
        runs += int(np.count_nonzero(np.diff(feasible.view(np.int8), prepend=np.int8(was)) == 1))
        if chosen < 0 and feasible.any():
            chosen = part.start + int(np.flatnonzero(valid)[np.argmax(feasible)])
        was = bool(feasible[-1]) if len(feasible) else was
    best, best_at, best_hits = _best_precision(keys, hits_from)
    if chosen < 0:
        raise Unreachable(precision, best, _logit(keys, best_at), best_hits / positives)
    # dropping the negatives up to the next positive costs no recall and raises the precision
    lowest = _next(keys, chosen, 1)
    while lowest > 0 and keys[lowest - 1] >> 1 == keys[lowest] >> 1:
        lowest -= 1
    tp = int(_ones(keys[lowest:]).sum())
    high = _logit(keys, lowest)
    low = _logit(keys, lowest - 1) if lowest else -np.inf
    return Threshold(
        logit=middle(low, high),
        gap_low=low,
        gap_high=high,
        predicted_positives=n - lowest,
        true_positives=tp,
        precision=tp / (n - lowest),
        recall=tp / positives,
        feasible_runs=runs,
        best_precision=best,
    )


def _ones(keys: Keys) -> NDArray[np.int64]:
    """Flags that are 1, counted for each part."""
    return np.array([int((keys[part] & 1).sum()) for part in _parts(len(keys))])


def _counts(keys: Keys, part: slice, most: int) -> tuple[Flags, Keys, Keys]:
    """For the cut at each sample of the part: whether it may be made, TP, predicted positives.

    `most` is the TP of the cut at the part's first sample.
    """
    n = len(keys)
    flags = keys[part] & 1
    hits = most + flags - np.cumsum(flags)
    return _starts(keys, part), hits, np.arange(n - part.start, n - part.stop, -1)


def _best_precision(keys: Keys, hits_from: NDArray[np.int64]) -> tuple[float, int, int]:
    """(the highest precision of any cut, that cut, its TP); the lowest such cut."""
    best, at, tp = -1.0, 0, 0
    parts = list(_parts(len(keys)))
    for j in range(len(parts) - 1, -1, -1):
        if hits_from[j] / (len(keys) - parts[j].stop + 1) < best:
            continue  # no cut in this part can do better
        valid, hits, predicted = _counts(keys, parts[j], int(hits_from[j]))
        ratio = np.where(valid, hits / predicted, -1.0)
        top = int(np.argmax(ratio))
        if ratio[top] >= best:
            best, at, tp = float(ratio[top]), parts[j].start + top, int(hits[top])
    return best, at, tp


def _next(keys: Keys, start: int, flag: int) -> int:
    """Index of the first key from `start` on with this flag."""
    for part in _parts(len(keys) - start):
        found = (keys[start:][part] & 1) == flag
        if found.any():
            return start + part.start + int(np.argmax(found))
    raise ValueError(f"no sample from {start} on has the flag {flag}")


def middle(low: float, high: float) -> float:
    """A float64 t with low < t <= high: the middle; below everything where low is -inf."""
    if low == -np.inf:
        return high - 1.0
    t = low + (high - low) / 2
    return t if t > low else high


@dataclass(frozen=True)
class Retuned:
    """The cut of a variant's logits that gives verdicts nearest to the reference's."""

    logit: float
    flips: int  # the fewest that any threshold leaves
    interval_low: float  # every threshold in (low, high] does the same
    interval_high: float
    gap: float  # lowest logit of a reference-positive minus highest of a reference-negative
    crossing: tuple[int, int] | None  # samples of the first such pair that is the wrong way round


def retune(logits: Logits, verdicts: Flags, threshold: float, gap: float) -> Retuned:
    """Minimise #{i: [logits_i >= t] != verdicts_i} over t, exactly.

    logits (n,) float32 of the variant, verdicts (n,) of the reference, `threshold` the one in
    force, `gap` the width of the reference's gap around it, used where an interval is open-ended.
    The threshold in force is kept where nothing does better. Else the optimal interval nearest to
    it is taken if at least half as wide as the widest, else the widest, and its middle.
    """
    keys = sort_keys(logits, verdicts)
    n = len(keys)
    cuts, fewest = _best_cuts(keys)
    bottom, top, step = _logit(keys, 0), _logit(keys, n - 1), max(gap, 1e-6)
    z = [min(bottom - step, np.nextafter(bottom, -np.inf)),
         max(top + step, np.nextafter(np.nextafter(top, np.inf), np.inf))]  # fmt: skip
    lows = np.array([_logit(keys, c - 1) if c else z[0] for c in cuts])
    highs = np.array([_logit(keys, c) if c < n else z[1] for c in cuts])
    inside = ((lows < threshold) | (cuts == 0)) & ((threshold <= highs) | (cuts == n))
    if inside.any():
        chosen, logit = int(np.argmax(inside)), threshold
    else:
        widths = highs - lows
        distance = np.maximum(lows - threshold, threshold - highs)
        chosen = int(np.argmin(distance))
        if widths[chosen] < widths.max() / 2:
            chosen = int(np.argmax(widths))
        logit = middle(float(lows[chosen]), float(highs[chosen]))
    separation, crossing = _separation(keys, logits, verdicts)
    return Retuned(logit, fewest, float(lows[chosen]), float(highs[chosen]), separation, crossing)


def _best_cuts(keys: Keys) -> tuple[NDArray[np.int64], int]:
    """The cuts with the fewest flips, and that number. Cut c: the c lowest become negative."""
    n = len(keys)
    ones_in = _ones(keys)
    ones = int(ones_in.sum())
    fewest, now = n + 1, n - ones
    found: list[NDArray[np.int64]] = []
    for part, inside in zip(_parts(n), ones_in, strict=True):
        size = part.stop - part.start
        start, now = now, now + 2 * int(inside) - size
        if start - (size - int(inside)) > fewest:
            continue  # even if all its negatives came first, no cut here does better
        steps = 2 * (keys[part] & 1) - 1
        flips = start + np.cumsum(steps) - steps  # at the cut just below each sample
        valid = _starts(keys, part)
        if not valid.any():
            continue
        least = int(flips[valid].min())
        if least < fewest:
            fewest, found = least, []
        if least == fewest:
            found.append(part.start + np.flatnonzero(valid & (flips == fewest)))
    if ones <= fewest:  # everything negative: every reference-positive flips
        found = [*found, np.array([n])] if ones == fewest else [np.array([n])]
        fewest = ones
    return np.concatenate(found), fewest


def _separation(
    keys: Keys, logits: Logits, verdicts: Flags
) -> tuple[float, tuple[int, int] | None]:
    """Lowest positive minus highest negative logit; and the pair of samples, where it is <= 0.

    Infinite where the reference gives one verdict only.
    """
    if verdicts.all() or not verdicts.any():
        return float("inf"), None
    lowest = _logit(keys, _next(keys, 0, 1))
    highest = _logit(keys, len(keys) - 1 - _next(keys[::-1], 0, 0))
    if lowest > highest:
        return lowest - highest, None
    positive = int(np.argmax((logits == np.float32(lowest)) & verdicts))
    negative = int(np.argmax((logits == np.float32(highest)) & ~verdicts))
    return lowest - highest, (positive, negative)
