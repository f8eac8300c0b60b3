"""For `make bench`: the whole decision by scikit-learn, SciPy and NumPy, as a good engineer would."""

from math import sqrt
from typing import Any

import numpy as np

from scripts.bench.given import CALIBRATED, NOISE, Array, Data, Parts, sklearn_threshold


def theirs(data: Data, given: Parts | None = None) -> dict[str, Any]:
    """The same by scikit-learn, SciPy and NumPy: of all samples ("whole"), and of the parts."""
    s, y = data.reference, data.labels
    t, low, high = curve_threshold(s, y)
    shares = given or split(y)
    right = s >= np.float64(t)
    nearest = np.argsort(np.abs(s - t))
    tuning = np.concatenate(shares[:3])
    whole, of_parts, deployed = {}, {}, {}
    for name, z in data.variants.items():
        left_out = data.calibrated if name == CALIBRATED else np.empty(0, np.int64)
        whole[name], of_parts[name] = versus(
            z, s, y, t, right, nearest, tuning, shares[3], left_out, high - low
        )
        tuned = of_parts[name]["retuning"]
        deployed[name] = (tuned and tuned["threshold"]) or t
    del nearest
    claimed = claims_of(data, shares, t, right, deployed)
    return {"whole": {"threshold": t, "compared": whole},
            "parts": {"compared": of_parts, "claims": claimed}}  # fmt: skip


def split(labels: Array) -> Parts:
    """Three stratified parts, one of them halved."""
    from sklearn.model_selection import train_test_split

    def halves(rows: Array) -> Any:
        return train_test_split(rows, test_size=0.5, stratify=labels[rows], random_state=0)

    tuning, judged = halves(np.arange(len(labels)))
    choosing, tune = halves(tuning)
    return choosing, *halves(tune), judged


def curve_threshold(s: Array, y: Array) -> tuple[float, float, float]:
    """The highest recall with a precision of 0.9: the middle of the gap, and its ends."""
    high = sklearn_threshold(s, y)
    low = float(s[s < high].max())
    return (low + high) / 2, low, high


def scores(verdicts: Array, truth: Array) -> dict[str, Any]:
    """All of one confusion matrix: faster than accuracy_score, precision_score and recall_score."""
    from sklearn.metrics import confusion_matrix

    tn, fp, fn, tp = confusion_matrix(truth, verdicts).ravel().tolist()
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn, "accuracy": (tp + tn) / len(truth),
            "precision": tp / (tp + fp), "recall": tp / (tp + fn)}  # fmt: skip


def spread(delta: Array) -> dict[str, float]:
    size = np.abs(delta)
    found = (delta.mean(), size.mean(), delta.min(), delta.max(), size.max())
    names = ("mean", "mean_absolute", "min", "max", "max_absolute")
    return dict(zip(names, map(float, found), strict=True))


def versus(
    z: Array, s: Array, y: Array, t: float, right: Array, nearest: Array, tuning: Array,
    held_out: Array, left_out: Array, gap: float,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """One variant against the reference and the labels: of all samples but those left out."""
    keep = np.ones(len(z), bool)
    keep[left_out] = False
    verdicts = z >= np.float64(t)
    flipped = np.flatnonzero((verdicts != right) & keep)
    flipped = flipped[np.argsort(np.abs(s[flipped] - t), kind="stable")]
    near = nearest[: 100 + len(left_out)]
    near = near[keep[near]][:100]
    down = int(right[flipped].sum())
    if len(left_out):
        tuning, held_out = tuning[keep[tuning]], held_out[keep[held_out]]
        z, s, y, right, verdicts = z[keep], s[keep], y[keep], right[keep], verdicts[keep]
        numbers = np.cumsum(keep) - 1
        tuning, held_out, near = numbers[tuning], numbers[held_out], numbers[near]
    whole: dict[str, Any] = {
        "flips": {"total": len(flipped), "positive_to_negative": down,
                  "samples": [{"index": int(i)} for i in flipped[:10]]},
        "deviation": spread(z - s) | {"near_threshold": spread(z[near] - s[near])},
        "vs_reference": scores(verdicts, right),
        "vs_labels": scores(verdicts, y),
    }  # fmt: skip
    found: dict[str, Any] = {"retuning": None}
    if len(flipped):
        whole["retuning"] = {"fewest_flips": sweep(z, right, t, gap)[1],
                             "separation": float(z[right].min()) - float(z[~right].max())}  # fmt: skip
        tuned = retuned(z, right, verdicts, t, gap, tuning, held_out)
        moved = z >= np.float64(tuned["candidate"])
        tuned |= {"flips_after": int((moved != right).sum()), "vs_labels": scores(moved, y)}
        found["retuning"] = tuned
    return whole, found


def retuned(
    z: Array, right: Array, verdicts: Array, t: float, gap: float, tuning: Array, held_out: Array
) -> dict[str, Any]:
    """Tuned on one part, accepted by the other."""
    found, _ = sweep(z[tuning], right[tuning], t, gap)
    before = int((verdicts[held_out] != right[held_out]).sum())
    after = int(((z[held_out] >= np.float64(found)) != right[held_out]).sum())
    return {"threshold": found if after < before else None, "candidate": found,
            "held_out": {"flips_before": before, "flips_after": after}}  # fmt: skip


def sweep(z: Array, right: Array, t: float, gap: float) -> tuple[float, int]:
    """(the threshold with the fewest flips, these): one sort and one sum (roc_curve is slower)."""
    order = np.argsort(z)
    z, steps = z[order], np.where(right[order], np.int8(1), np.int8(-1))
    flips = np.concatenate([[0], np.cumsum(steps)]) + np.count_nonzero(~right)
    flips[1:-1][z[1:] == z[:-1]] = len(z) + 1
    fewest = int(flips.min())
    cuts = np.flatnonzero(flips == fewest)
    low = np.where(cuts > 0, z[np.maximum(cuts - 1, 0)].astype(float), z[0] - gap)
    high = np.where(cuts < len(z), z[np.minimum(cuts, len(z) - 1)].astype(float), z[-1] + gap)
    if ((low < t) & (t <= high)).any():
        return t, fewest
    best = int(np.argmin(np.maximum(low - t, t - high)))
    if high[best] - low[best] < (high - low).max() / 2:
        best = int(np.argmax(high - low))
    return float((low[best] + high[best]) / 2), fewest


def claims_of(
    data: Data, shares: Parts, deployed: float, positive: Array, thresholds: dict[str, float]
) -> dict[str, Any]:
    """What is claimed of new data: chosen, tuned and judged on different parts."""
    s, y = data.reference, data.labels
    choosing, first, second, judged = shares
    t, low, high = curve_threshold(s[choosing], y[choosing])
    tune = np.concatenate([first, second])
    halves = np.arange(len(first)), np.arange(len(first), len(tune))
    wanted = s[tune] >= np.float64(t)
    found = {}
    for name, z in data.variants.items():
        moved, here = t, z[tune]
        verdicts = here >= np.float64(t)
        if (verdicts != wanted).any():
            tuned = retuned(here, wanted, verdicts, t, high - low, *halves)
            moved = tuned["threshold"] or t
        left = np.setdiff1d(judged, data.calibrated) if name == CALIBRATED else judged
        flipped = (z >= np.float64(thresholds[name])) != positive
        found[name] = claim_of(s[left], z[left], y[left], flipped[left], (t, moved, deployed))
        found[name]["thresholds"] = [moved]
    return {"thresholds": [t], "variants": found}


def claim_of(
    s: Array, z: Array, y: Array, flipped: Array, thresholds: tuple[float, float, float]
) -> dict[str, Any]:
    """Flips, quality, margins of one variant; thresholds: the reference's, its own, the deployed."""
    from scipy.stats import beta, binomtest, norm

    n, alpha = len(s), 0.05 / len(NOISE)
    v, w = s >= np.float64(thresholds[0]), z >= np.float64(thresholds[1])
    flips = int(((v != w) | flipped).sum())

    def upper(d: int, n: int) -> float:
        return float(beta.ppf(1 - alpha, d + 1, n - d))

    def needed(rate: float) -> int:
        low, high = flips, flips + 1
        while high == flips or upper(flips, high) > rate:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if upper(flips, middle) > rate else (low, middle)
        return high

    table = scores(w, y)
    tp, k = table["tp"], table["tp"] + table["fp"]
    worse, better = int(((v == y) & (w != y)).sum()), int(((v != y) & (w == y)).sum())
    both, change = worse + better, float(norm.ppf(0.975) + norm.ppf(0.8))
    p, harm = (
        float(binomtest(worse, both, 0.5, alternative=side).pvalue) if both else 1.0
        for side in ("two-sided", "greater")
    )
    return {
        "samples": n,
        "flips": flips,
        "positives": int(v.sum()),
        "flip_rate_upper": upper(flips, n),
        "samples_needed": {f"{rate:g}": needed(rate) for rate in (1e-3, 1e-4)},
        "precision": {
            "predicted_positives": k,
            "true_positives": tp,
            "value": table["precision"],
            "lower": float(beta.ppf(alpha, tp, k - tp + 1)),
        },
        "recall": table["recall"],
        "mcnemar": {"worse": worse, "better": better, "p": p, "p_harm": harm},
        "detectable_change": change * sqrt(max(both, 1) / n**2),
        **margins(s, z, thresholds[2]),
    }


def margins(s: Array, z: Array, t: float) -> dict[str, Any]:
    """The forecast with its bootstrap, and the margin certificate."""
    margin, size = np.abs(s - np.float32(t)), np.abs(z - s)
    order = np.argsort(margin)
    n = len(s)
    h = float(margin[order[min(n, 100) - 1]])
    inside = size[order[: np.searchsorted(margin[order[:1000]], h, side="right")]]
    random = np.random.default_rng(0)
    drawn = random.choice(inside, (1000, len(inside))).mean(axis=1)
    scale = 1e6 / (n * 2 * h)
    sums = drawn * random.binomial(n, len(inside) / n, 1000) * scale
    low, high = np.percentile(sums, [2.5, 97.5])
    band = order[: max(100, n // 100)]
    largest = float(size[band].max())
    factor = np.divide(margin, size, out=np.full(n, np.inf, np.float32), where=size > 0)
    return {
        "forecast": {"per_million": float(inside.sum()) * scale, "half_width": h,
                     "samples": len(inside), "low": float(low), "high": float(high)},
        "certificate": {
            "min_safety_factor": float(factor.min()),
            "nearest": [{"margin": float(margin[i])} for i in order[:10]],
            "band": float(margin[band[-1]]),
            "band_samples": len(band),
            "max_deviation": largest,
            "coverage": np.count_nonzero(margin > largest) / n,
        },
    }  # fmt: skip
