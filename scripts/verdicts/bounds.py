"""What the counts of a test set say of samples it does not hold: bounds, tests, a forecast, margins.

All pure functions. Samples are taken as independent; where they are not (frames of one video, images
of one patient) a bound is too small. SciPy is imported where it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from scripts.verdicts.thresholds import Logits, _parts, is_positive

Reals = NDArray[np.float64]
Deviations = NDArray[np.float32] | NDArray[np.float64]
NEAREST = 100  # samples nearest to the threshold, of which the density and the deviation are taken
LISTED = 10  # smallest margins that a certificate names
DRAWN = 1000  # in-band samples up to which the bootstrap draws them one by one


def flip_bound(flips: int, n: int, alpha: float) -> float:
    """Upper bound of the flip rate at confidence 1 - alpha, exact (Clopper & Pearson 1934).

    The rate at which `flips` or fewer in n samples have probability alpha; 1.0 where all flipped.
    No flips: about 3.0 / n at alpha 0.05, the rule of three (Hanley & Lippman-Hand 1983).
    ValueError unless 0 <= flips <= n, n > 0 and 0 < alpha < 1.
    """
    from scipy.special import betainccinv

    _check_part(flips, n, "flips", "samples")
    _check_share("alpha", alpha)
    return 1.0 if flips == n else float(betainccinv(flips + 1, n - flips, alpha))


def precision_bound(tp: int, k: int, alpha: float) -> float:
    """Lower bound of the precision at confidence 1 - alpha, exact (Clopper & Pearson 1934).

    `tp` of k predicted positives are positive; 0.0 where none is. It holds for a threshold that
    other samples chose. ValueError unless 0 <= tp <= k, k > 0 and 0 < alpha < 1.
    """
    from scipy.special import betaincinv

    _check_part(tp, k, "true positives", "predicted positives")
    _check_share("alpha", alpha)
    return 0.0 if tp == 0 else float(betaincinv(tp, k - tp + 1, alpha))


def samples_needed(rate: float, alpha: float, flips: int = 0) -> int:
    """The smallest n with flip_bound(flips, n, alpha) <= rate.

    2995 for a rate of 1e-3 without a flip at alpha 0.05. ValueError unless 0 < rate < 1.
    """
    _check_share("the flip rate", rate)
    _check_part(flips, flips + 1, "flips", "samples")
    low, high = flips, flips + 1  # with n = flips the bound is 1
    while flip_bound(flips, high, alpha) > rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if flip_bound(flips, middle, alpha) > rate:
            low = middle
        else:
            high = middle
    return high


def retuned_bound(flips: int, n: int, alpha: float, points: int = 1) -> float:
    """Upper bound of the flip rate at a threshold that the same n samples chose.

    Sample compression (Littlestone & Warmuth 1986; Langford 2005): `points` of the samples fix the
    threshold, and are not among the n - points that judge it; alpha is shared by the n ** points
    that it could have been. points = 1: the threshold is one of the logits, about 12 / n for no
    flip in 10,000. points = 2: it is the middle between two of them, as `thresholds.retune` and
    `choose_threshold` take it (with n >= 4 the n * n shares also cover an open end and the old
    threshold kept), about 21 / n. ValueError as `flip_bound`, and unless points is 1 or 2.
    """
    _check_part(flips, n, "flips", "samples")
    _check_share("alpha", alpha)
    if points not in (1, 2):
        raise ValueError(f"{points} samples fix the threshold; it must be 1 or 2")
    if flips >= n - points:
        return 1.0
    return flip_bound(flips, n - points, alpha / n**points)


def mcnemar(worse: int, better: int) -> float:
    """Two-sided exact p that a change is as often for the worse as for the better.

    Of the verdicts that changed, `worse` turned from right to wrong, `better` from wrong to right
    (McNemar 1947, with the binomial law). 1.0 where none changed. ValueError where one is negative.
    """
    return min(1.0, 2 * harm(max(worse, better), min(worse, better)))


def harm(worse: int, better: int) -> float:
    """One-sided exact p = P(Bin(worse + better, 1/2) >= worse): small where the change does harm."""
    from scipy.special import betainc

    if not (worse >= 0 and better >= 0):
        raise ValueError(f"{worse} verdicts for the worse and {better} for the better")
    return float(betainc(worse, better + 1, 0.5)) if worse else 1.0


def detectable_change(discordance: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The change of accuracy that a two-sided McNemar test finds with probability `power`.

    (z(1 - alpha/2) + z(power)) * sqrt(discordance / n), `discordance` the share of samples that one
    of the two gets right and the other wrong (Miettinen 1968, its leading term). ValueError unless
    n > 0, 0 <= discordance <= 1, and alpha and power lie between 0 and 1.
    """
    from scipy.special import ndtri

    _check_share("alpha", alpha)
    _check_share("the power", power)
    if not (0 <= discordance <= 1 and n > 0):
        raise ValueError(f"a discordance of {discordance} in {n} samples")
    return float(ndtri(1 - alpha / 2) + ndtri(power)) * sqrt(discordance / n)


@dataclass(frozen=True)
class Forecast:
    """Expected flips per million samples, with a 95 % bootstrap interval."""

    per_million: float
    low: float
    high: float
    half_width: float  # of the band around the threshold, in logits
    samples: int  # in that band


def forecast(
    reference: Logits, deviation: Deviations, threshold: float, seed: int = 0,
    resamples: int = 1000,
) -> Forecast:  # fmt: skip
    """1e6 * f(threshold) * E|deviation|: the flips that the logits' density there lets expect.

    reference (n,) float32 logits, deviation (n,) variant minus reference. Both factors are taken
    in the smallest band |logit - threshold| <= h that holds 100 samples (all, where there are
    fewer): f = samples / (n * 2h). Percentile interval (Efron 1979) with h held: the number in the
    band is drawn from Bin(n, samples / n), and as many deviations from those in it (above 1000 of
    them, their sum from the normal law). ValueError on lengths that differ, NaN, infinity, h = 0.
    """
    n = _check_lengths(reference, deviation, "deviations", threshold)
    h = float(_nearest(reference, threshold, min(NEAREST, n)).max())
    if h == 0:
        raise ValueError(
            f"the {min(NEAREST, n)} logits nearest to the threshold {threshold} all equal it: "
            "their density has no width to be taken over"
        )
    kept: list[Reals] = [np.empty(0)]
    count, total, squares = 0, 0.0, 0.0
    for part, margin in _margins(reference, threshold):
        if not np.isfinite(deviation[part]).all():
            raise ValueError("the deviations hold NaN or infinity")
        inside = np.abs(deviation[part][margin <= h].astype(np.float64))
        count, total = count + len(inside), total + float(inside.sum())
        squares += float((inside**2).sum())
        if count <= DRAWN:
            kept.append(inside)
    random = np.random.default_rng(seed)
    counts = random.binomial(n, count / n, resamples)
    if count <= DRAWN:
        drawn = np.append(0.0, np.cumsum(random.choice(np.concatenate(kept), int(counts.sum()))))
        sums = drawn[np.cumsum(counts)] - drawn[np.cumsum(counts) - counts]
    else:
        mean = total / count
        spread = sqrt(max(squares / count - mean**2, 0))
        sums = np.maximum(counts * mean + random.normal(0, spread, resamples) * np.sqrt(counts), 0)
    scale = 1e6 / (n * 2 * h)
    low, high = np.percentile(sums * scale, [2.5, 97.5])
    return Forecast(total * scale, float(low), float(high), h, count)


@dataclass(frozen=True)
class Nearest:
    """One of the samples nearest to the threshold."""

    index: int
    margin: float
    safety_factor: float  # margin / |deviation|; above 1 the verdict cannot have flipped


@dataclass(frozen=True)
class Certificate:
    """How far the verdicts are from flipping. Margins and deviations are in logits."""

    samples: int
    flips: int  # verdicts that differ, and variant logits that are not finite
    min_safety_factor: float
    nearest: tuple[Nearest, ...]  # the ten smallest margins, ascending
    band: float  # the margin of the last of the nearest max(100, n // 100) samples
    band_samples: int  # with a margin up to `band`
    max_deviation: float  # of those
    coverage: float  # share of samples with a margin above max_deviation
    margin: float | None  # m, as given
    unseen: float | None  # upper bound of the flip rate of unseen samples


def certificate(
    reference: Logits, variant: Logits, threshold: float, alpha: float, m: float | None = None
) -> Certificate:
    """Margins |reference - threshold| held against deviations |variant - reference|, in float64.

    reference, variant (n,) float32 logits. `m`, a margin fixed without these samples, gives
    P(flip) <= P(margin <= m) + P(|deviation| > m), each bounded by `flip_bound` at alpha / 2. A
    variant logit that is not finite has an infinite deviation and counts as a flip, whatever the
    reference's verdict. ValueError on lengths that differ, a reference or threshold that is not
    finite, an m that is negative or NaN, alpha outside (0, 1).
    """
    n = _check_lengths(reference, variant, "logits of the variant", threshold)
    _check_share("alpha", alpha)
    if m is not None and not m >= 0:
        raise ValueError(f"a margin of {m}; it must be 0 or more")
    closest = _nearest(reference, threshold, min(max(NEAREST, n // 100), n))
    band, listed = float(closest.max()), float(np.sort(closest)[:LISTED].max())
    flips = beyond = within = inside = 0
    worst, largest = np.inf, 0.0
    rows: list[Nearest] = []
    for part, margin in _margins(reference, threshold):
        z, s = variant[part], reference[part]
        finite = np.isfinite(z)
        delta = np.where(finite, np.abs(z.astype(np.float64) - s), np.inf)
        factor = np.divide(margin, delta, out=np.full(len(delta), np.inf), where=delta > 0)
        flips += int(((is_positive(z, threshold) != is_positive(s, threshold)) | ~finite).sum())
        worst = min(worst, float(factor.min()))
        near = margin <= band
        inside += int(near.sum())
        largest = max(largest, float(delta[near].max(initial=0)))
        if m is not None:
            within, beyond = within + int((margin <= m).sum()), beyond + int((delta > m).sum())
        few = np.flatnonzero(margin <= listed)
        for i in few[np.argsort(margin[few], kind="stable")][:LISTED].tolist():
            rows.append(Nearest(part.start + i, float(margin[i]), float(factor[i])))
    covered = sum(int((margin > largest).sum()) for _, margin in _margins(reference, threshold))
    unseen = None
    if m is not None:
        unseen = min(1.0, flip_bound(within, n, alpha / 2) + flip_bound(beyond, n, alpha / 2))
    nearest = tuple(sorted(rows, key=lambda row: (row.margin, row.index))[:LISTED])
    return Certificate(n, flips, worst, nearest, band, inside, largest, covered / n, m, unseen)


def _margins(logits: Logits, threshold: float) -> Iterator[tuple[slice, Reals]]:
    """|logit - threshold| in float64, part by part."""
    for part in _parts(len(logits)):
        yield part, np.abs(logits[part].astype(np.float64) - threshold)


def _nearest(logits: Logits, threshold: float, k: int) -> Reals:
    """The k smallest margins, in no order. ValueError on NaN and infinity."""
    kept: Reals = np.empty(0)
    limit = np.inf
    for _, margin in _margins(logits, threshold):
        if not np.isfinite(margin).all():
            raise ValueError("the reference's logits hold NaN or infinity")
        kept = np.concatenate([kept, margin[margin < limit]])
        if len(kept) > k:
            kept = np.partition(kept, k - 1)[:k]
            limit = kept[k - 1]
    return kept


def _check_part(part: int, whole: int, what: str, of: str) -> None:
    if not (0 <= part <= whole and whole > 0):
        raise ValueError(f"{part} {what} of {whole} {of}")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")


def _check_lengths(reference: Logits, other: Deviations, what: str, threshold: float) -> int:
    if len(reference) != len(other):
        raise ValueError(f"{len(reference)} logits of the reference and {len(other)} {what}")
    if not len(reference):
        raise ValueError("no samples: there is nothing to measure")
    if not isfinite(threshold):
        raise ValueError(f"the threshold is {threshold}; it must be finite")
    return len(reference)
