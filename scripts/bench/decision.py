"""For `make bench`: the whole decision on ten million logits and five variants, and the guarantees.

Ours: the threshold, each variant's comparison (flips, deviation, confusion, re-tuning) and the
claims (bounds, McNemar's test, forecast, certificate). Theirs: the same quantities as a good engineer
would get them from scikit-learn, SciPy and NumPy, nothing done twice that all variants share.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import isclose, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.simulate_guarantees import bound_violations, guarantee_violations
from scripts.case.rules import Rules
from scripts.data import parts
from scripts.verdicts.claims import Facts, Given, claims
from scripts.verdicts.compare_verdicts import compare
from scripts.verdicts.policies import choose

ROUNDS = 3
FEW = 200_000  # samples on which both get the same parts, so that every number can be compared
SETS = 2000
SIGMA = sqrt(0.05 * 0.95 / SETS)
PRECISION, RULES = Fraction(9, 10), Rules()
NOISE = {  # bias, standard deviation of variant minus reference
    "fp32": (0.0, 1e-6),
    "fp16": (0.0, 1e-3),
    "bf16": (0.0, 8e-3),
    "int8": (0.0, 2e-2),
    "biased": (2e-2, 1e-3),
}
CALIBRATED = "int8"

Array = NDArray[Any]
Row = tuple[tuple[str, float, str, float], dict[str, Any]]
Parts = tuple[Array, Array, Array, Array]  # rows: choose, tune, accept the tuning, judge


@dataclass(frozen=True)
class Data:
    """What both are given; arrays (n,)."""

    reference: NDArray[np.float32]
    labels: NDArray[np.bool_]
    variants: dict[str, NDArray[np.float32]]
    calibrated: NDArray[np.int64]  # rows


def rows(folder: Path) -> list[Row]:
    """((what, measured, relation, bound), more) of each row; `folder` takes the arrays."""
    return [*decision(folder), *simulations()]


def decision(folder: Path) -> list[Row]:
    """Time and added memory of both on the same arrays. ValueError where their numbers differ."""
    from scripts.bench.run_bench import LOGITS

    few = make(FEW)
    own, other = ours(few), theirs(few, as_ours(few.labels))
    for which in ("whole", "parts"):
        agree(own, other[which])
    data = make(LOGITS)
    store(data, folder)
    seconds: list[list[float]] = [[], []]
    for turn in range(ROUNDS):
        own, taken = timed(ours, data)
        seconds[0].append(taken)
        other, taken = timed(theirs, data)
        seconds[1].append(taken)
        if turn == 0:
            agree(own, other["whole"])
    del own, other, data
    fast, slow = (float(np.median(one)) for one in seconds)
    peaks = [added(folder, name) for name in ("ours", "theirs")]
    return [
        (("time of scikit-learn and SciPy over ours, the whole decision", slow / fast, ">=", 5.0),
         {"seconds": seconds}),
        (("memory of ours over scikit-learn and SciPy, the whole decision",
          peaks[0] / peaks[1], "<=", 0.5), {"peak_bytes": peaks}),
    ]  # fmt: skip


def simulations() -> list[Row]:
    """How often a guaranteed threshold and a bound fail, of test sets whose truth is known."""
    bound = 0.05 + 3 * SIGMA
    found: list[Row] = []
    of = f"share of {SETS:,} test sets"
    for n in (2000, 10_000):
        violated, none = guarantee_violations(SETS, n, n, 0.95)
        what = f"guaranteed threshold violated, {of} of {n:,} (0.05 + 3 sigma)"
        found.append(((what, violated / SETS, "<=", bound), {"without_one": none}))
    for n, rate in ((2000, 5e-3), (10_000, 1e-3)):
        below = bound_violations(SETS, n, rate, n, 0.05)
        what = f"flip bound below the true rate, {of} of {n:,} (0.05 + 3 sigma)"
        found.append(((what, below / SETS, "<=", bound), {"rate": rate}))
    return found


def timed(call: Callable[[Data], Any], data: Data) -> tuple[Any, float]:
    """(what it gives, seconds)"""
    parts._half.cache_clear()  # what ours keeps from the last round
    start = time.perf_counter()
    found = call(data)
    return found, time.perf_counter() - start


def added(folder: Path, name: str) -> int:
    """The most memory, in bytes, that one decision adds to its arrays, in a process of its own."""
    from scripts.bench.run_bench import ADDED

    call = f"import sklearn.model_selection, scipy.stats; data = load(Path({str(folder)!r}))"
    program = (
        ADDED.replace("z, y = logits()", call)
        .replace("scripts.bench.run_bench ", "scripts.bench.decision ")
        .format(call=f"{name}(data)")
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1])


# ---- what both are given ------------------------------------------------------------------------


def make(n: int) -> Data:
    """Logits of two overlapping classes, and each variant's: with its noise and bias."""
    from scripts.bench.run_bench import logits

    reference, labels = (array[:n] for array in logits())
    random = np.random.default_rng(1)
    variants = {
        name: reference + (random.standard_normal(n, np.float32) * np.float32(noise) + np.float32(bias))
        for name, (bias, noise) in NOISE.items()
    }  # fmt: skip
    flags = labels.astype(bool)
    return Data(reference, flags, variants, parts.calibration_rows(flags))


def store(data: Data, folder: Path) -> None:
    """Write the arrays to `folder`."""
    folder.mkdir(parents=True)
    for name in ("reference", "labels", "calibrated"):
        np.save(folder / f"{name}.npy", getattr(data, name))
    for name, array in data.variants.items():
        np.save(folder / f"{name}.npy", array)


def load(folder: Path) -> Data:
    """What store() wrote, read into memory: it counts for neither."""
    array = {name: np.load(folder / f"{name}.npy")
             for name in ("reference", "labels", "calibrated", *NOISE)}  # fmt: skip
    variants = {name: array[name] for name in NOISE}
    return Data(array["reference"], array["labels"], variants, array["calibrated"])


# ---- ours ---------------------------------------------------------------------------------------


def ours(data: Data) -> dict[str, Any]:
    """The decision as the steps of a case make it."""
    s, y = data.reference, data.labels
    chosen = choose(s, y, PRECISION, RULES)
    compared, facts = {}, {}
    for name, z in data.variants.items():
        calibrated = data.calibrated if name == CALIBRATED else None
        gap = chosen.gap_high - chosen.gap_low
        compared[name] = found = compare(z, s, y, chosen.logit, gap, calibrated=calibrated)
        tuned = found["retuning"] and found["retuning"]["threshold"]
        facts[name] = Facts(z, chosen.logit if tuned is None else tuned, calibrated is not None)
    given = Given(s, y, chosen.logit, PRECISION, RULES)
    return {"threshold": chosen.logit, "compared": compared, "claims": claims(given, facts)}


def as_ours(labels: NDArray[np.bool_]) -> Parts:
    """The rows of our own parts."""
    part = parts.three(labels)
    tune = np.flatnonzero(part == 1)
    first = parts.half(labels[tune])
    return np.flatnonzero(part == 0), tune[first], tune[~first], np.flatnonzero(part == 2)


def agree(own: Any, other: Any, where: str = "", within: float = 1e-4) -> None:
    """ValueError unless every number of `other` is in `own`: counts equal, the rest within 1e-4."""
    if isinstance(other, dict):
        for key, value in other.items():
            # the ends of a bootstrap's interval are random numbers of each
            agree(own[key], value, f"{where} {key}", 0.2 if key in ("low", "high") else 1e-4)
    elif isinstance(other, list):
        for i, value in enumerate(other):
            agree(own[i], value, f"{where} {i}")
    elif isinstance(other, float) and isinstance(own, float):
        if not isclose(own, other, rel_tol=within, abs_tol=1e-7):
            raise ValueError(f"{where}: {own} is ours, {other} theirs")
    elif own != other:
        raise ValueError(f"{where}: {own} is ours, {other} theirs")


# ---- theirs -------------------------------------------------------------------------------------


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
    from scripts.bench.run_bench import sklearn_threshold

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
