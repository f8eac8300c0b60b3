"""What is claimed of new data, from samples that did not choose: pure functions on arrays.

With fewer than PLENTY labelled samples by cross-fitting: each fold's threshold and re-tuned thresholds
are chosen on the other folds, and the verdicts on the folds are pooled. With more, three parts: one
fixes the threshold, one re-tunes, one is judged, and the bounds are exact. A variant is never judged
on samples that calibrated it, nor a repaired one on the half on which the repair was sought.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.case.rules import Rules
from scripts.data.parts import SEED, calibration_rows, folds, half, three
from scripts.files import finite
from scripts.verdicts.bounds import (
    certificate,
    detectable_change,
    flip_bound,
    forecast,
    harm,
    mcnemar,
    precision_bound,
    samples_needed,
)
from scripts.verdicts.compare_verdicts import retuning
from scripts.verdicts.policies import choose
from scripts.verdicts.thresholds import Threshold, is_positive

PLENTY = 5000  # labelled samples: three parts instead of folds
FOLDS = 5
RATES = (1e-3, 1e-4)  # for which the samples needed are told

Flags = NDArray[np.bool_]
Logits = NDArray[np.float32]
Groups = NDArray[np.int64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Facts:
    """What is known of one variant: its logits (n,) float32, and the threshold it is deployed with."""

    logits: Logits
    threshold: float
    calibrated: bool = False  # on parts.calibration_rows
    repaired: bool = False  # on the tuning half
    elsewhere: frozenset[int] = field(
        default_factory=frozenset
    )  # samples that flip under a condition
    traffic: Logits | None = None


@dataclass(frozen=True)
class Given:
    """What all variants are held against; arrays (n,)."""

    reference: Logits
    labels: Flags
    threshold: float  # deployed
    precision: Fraction
    rules: Rules
    groups: Groups | None = None
    noise: frozenset[int] = field(
        default_factory=frozenset
    )  # samples in which the reference differs
    traffic: Logits | None = None  # the reference's, of the unlabelled samples


def claims(given: Given, variants: dict[str, Facts]) -> dict[str, Any]:
    """Everything that is claimed. Raises ValueError where the data is too little to be split."""
    n, plenty = len(given.labels), len(given.labels) >= PLENTY
    if n == 0:
        raise ValueError("no samples: nothing can be claimed")
    pooled = np.zeros(n, bool)  # samples that are judged
    right = np.zeros(n, bool)
    verdicts = {name: np.zeros(n, bool) for name in variants}
    thresholds, tuned = [], {name: list[float]() for name in variants}
    for k, (chose, tune, judged) in enumerate(splits(given)):
        try:
            found = chosen(given, chose)
        except ValueError as error:
            where = "on the part that fixes it" if plenty else f"without fold {k + 1} of {FOLDS}"
            raise ValueError(f"{where}, {error}") from None
        thresholds.append(found.logit)
        pooled |= judged
        right |= is_positive(given.reference, found.logit) & judged
        tune_rows = np.flatnonzero(tune)
        for name, facts in variants.items():
            t = moved(given, facts, found, tune_rows)
            tuned[name].append(t)
            verdicts[name] |= is_positive(facts.logits, t) & judged
    alpha = 1 - given.rules.confidence
    share = alpha / max(1, len(variants))
    return {
        "scheme": "three parts" if plenty else "cross-fitting",
        "folds": None if plenty else FOLDS,
        "seed": SEED,
        "grouped": given.groups is not None,
        "confidence": given.rules.confidence,
        "variants_compared": len(variants),
        "alpha": share,
        "samples": int(pooled.sum()),
        "thresholds": thresholds,
        "reference": quality(right[pooled], given.labels[pooled], alpha),
        "variants": {
            name: claim(given, facts, pooled & allowed(given, facts), right, verdicts[name], share)
            | {"thresholds": tuned[name]}
            for name, facts in variants.items()
        },
    }


def splits(given: Given) -> Iterator[tuple[Flags, Flags, Flags]]:
    """(samples that choose the threshold, that re-tune, that are judged) of each round."""
    if len(given.labels) >= PLENTY:
        part = three(given.labels, given.groups)
        yield part == 0, part == 1, part == 2
        return
    fold = folds(given.labels, given.groups, FOLDS)
    for k in range(FOLDS):
        yield fold != k, fold != k, fold == k


def allowed(given: Given, facts: Facts) -> Flags:
    """The samples that neither calibrated nor repaired the variant."""
    good = np.ones(len(given.labels), bool)
    if facts.repaired:
        good &= ~half(given.labels, given.groups)
    if facts.calibrated:
        rows = calibration_rows(given.labels, given.groups)
        good[rows] = False
        if given.groups is not None:
            good &= ~np.isin(given.groups, given.groups[rows])
    return good


def chosen(given: Given, rows: Flags) -> Threshold:
    """The case's own policy, on these samples alone."""
    return choose(given.reference[rows], given.labels[rows], given.precision, given.rules)


def moved(given: Given, facts: Facts, found: Threshold, rows: Rows) -> float:
    """The variant's threshold by the case's procedure on these samples: re-tuned where that helps."""
    z, s, y = facts.logits[rows], given.reference[rows], given.labels[rows]
    groups = None if given.groups is None else given.groups[rows]
    gap = found.gap_high - found.gap_low if np.isfinite(found.gap_low) else 1.0
    right = is_positive(s, found.logit)
    if (is_positive(z, found.logit) == right).all():
        return found.logit
    told = retuning(z, right, y, half(y, groups), found.logit, gap, range(len(y)))
    return found.logit if told is None or told["threshold"] is None else float(told["threshold"])


def claim(
    given: Given, facts: Facts, judged: Flags, right: Flags, verdicts: Flags, alpha: float
) -> dict[str, Any]:
    """Flips, quality and margins of one variant on the samples that may judge it.

    A sample counts as flipped where it flips with the folds' thresholds, with those deployed, or
    under any condition it was tried under, except where the reference differs from itself.
    """
    rows = np.flatnonzero(judged)
    n = len(rows)
    if n == 0:
        return {"samples": 0}
    deployed = is_positive(facts.logits, facts.threshold) != is_positive(
        given.reference, given.threshold
    )
    flipped = (verdicts != right) | deployed | mask(facts.elsewhere, len(judged))
    flipped &= judged & ~mask(given.noise, len(judged))
    d = int(flipped.sum())
    positives = np.count_nonzero(right & judged)
    found: dict[str, Any] = {"samples": n, "flips": d, "positives": positives}
    found["one_verdict"] = positives in (0, n)
    units, flips = n, d
    if given.groups is not None:
        units = len(np.unique(given.groups[judged]))
        flips = len(np.unique(given.groups[flipped]))
        found["groups"] = {"count": units, "flipped": flips}
    if given.traffic is not None and facts.traffic is not None:
        away = is_positive(facts.traffic, facts.threshold) != is_positive(
            given.traffic, given.threshold
        )
        found["traffic"] = {"samples": len(away), "flips": int(away.sum())}
        units, flips = units + len(away), flips + int(away.sum())
    w, y, v = verdicts[rows], given.labels[rows], right[rows]
    worse, better = np.count_nonzero((v == y) & (w != y)), np.count_nonzero((v != y) & (w == y))
    return found | {
        "flip_rate_upper": flip_bound(flips, units, alpha),
        "bounded": {"flips": flips, "samples": units},
        "samples_needed": {f"{rate:g}": samples_needed(rate, alpha, flips) for rate in RATES},
        "samples_wanted": samples_needed(given.rules.flip_rate, alpha, flips),
        **quality(w, y, alpha),
        "mcnemar": {
            "worse": worse,
            "better": better,
            "p": mcnemar(worse, better),
            "p_harm": harm(worse, better),
        },
        "detectable_change": detectable_change(max(worse + better, 1) / n, n),
        "forecast": foretold(given, facts, rows),
        "certificate": certified(given, facts, rows, alpha),
    }


def quality(verdicts: Flags, labels: Flags, alpha: float) -> dict[str, Any]:
    """Precision with its lower bound, and recall, against the labels; None where undefined."""
    k, tp, positives = (np.count_nonzero(one) for one in (verdicts, verdicts & labels, labels))
    return {
        "precision": {
            "predicted_positives": k,
            "true_positives": tp,
            "value": tp / k if k else None,
            "lower": precision_bound(tp, k, alpha) if k else None,
        },
        "recall": tp / positives if positives else None,
    }


def foretold(given: Given, facts: Facts, rows: Rows) -> dict[str, Any] | None:
    """Expected flips per million by the law density times mean deviation; None where it says nothing."""
    reference = given.reference[rows]
    delta = facts.logits[rows].astype(np.float64)
    delta -= reference
    if not np.isfinite(delta).all():
        return None
    try:
        found = forecast(reference, delta, given.threshold, SEED)
    except ValueError:  # all logits at the threshold: no density
        return None
    return {
        key: getattr(found, key) for key in ("per_million", "low", "high", "half_width", "samples")
    }


def certified(given: Given, facts: Facts, rows: Rows, alpha: float) -> dict[str, Any]:
    """The margin certificate, with samples numbered as in the test data."""
    found = certificate(given.reference[rows], facts.logits[rows], given.threshold, alpha)
    return {
        "min_safety_factor": finite(found.min_safety_factor),
        "nearest": [
            {
                "index": int(rows[one.index]),
                "margin": one.margin,
                "safety_factor": finite(one.safety_factor),
            }
            for one in found.nearest
        ],
        "band": found.band,
        "band_samples": found.band_samples,
        "max_deviation": finite(found.max_deviation),
        "coverage": found.coverage,
    }


def mask(samples: frozenset[int], n: int) -> Flags:
    """True for each sample in the set."""
    found = np.zeros(n, bool)
    found[list(samples)] = True
    return found
