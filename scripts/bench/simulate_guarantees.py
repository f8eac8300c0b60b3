"""Simulated test sets from a population whose true rates are known: are guarantees and bounds kept?

Pure functions of a seed. The population: logits s from Normal(0, 2), positive with probability
1 / (1 + exp(-s)), so that precision rises with the threshold and can be integrated.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from scripts.verdicts.bounds import flip_bound
from scripts.verdicts.policies import guaranteed
from scripts.verdicts.thresholds import Logits, Threshold

PRECISION = Fraction(9, 10)
SPREAD = 2.0  # standard deviation of the logits

Choose = Callable[[Logits, NDArray[np.bool_]], Threshold]


def guarantee_violations(
    sets: int, n: int, seed: int, confidence: float, choose: Choose | None = None, step: float = 0.0
) -> tuple[int, int]:
    """(test sets whose guaranteed threshold has a true precision below 0.9, sets without one).

    `sets` test sets of n samples. At most about sets * (1 - confidence) may be violations.
    `choose`: another rule to judge; `step`: logits rounded to its multiples, for ties.
    """
    random = np.random.default_rng(seed)
    rule = choose or (lambda logits, labels: guaranteed(logits, labels, PRECISION, confidence))
    violations = none = 0
    for _ in range(sets):
        s = random.normal(0, SPREAD, n)
        labels = random.random(n) < 1 / (1 + np.exp(-s))
        logits = (np.round(s / step) * step if step else s).astype(np.float32)
        try:
            threshold = rule(logits, labels).logit
        except ValueError:
            none += 1
            continue
        if step:  # the lowest s that is rounded to a positive logit
            threshold = (np.ceil(threshold / step) - 0.5) * step
        violations += true_precision(threshold) < PRECISION
    return violations, none


def bound_violations(sets: int, n: int, rate: float, seed: int, alpha: float) -> int:
    """Of `sets` test sets of n samples that flip at `rate`, those whose flip_bound is below it.

    At most about sets * alpha may be.
    """
    flips = np.random.default_rng(seed).binomial(n, rate, sets)
    values, counts = np.unique(flips, return_counts=True)
    below = [flip_bound(int(value), n, alpha) < rate for value in values]
    return int(counts[below].sum())


def true_precision(threshold: float) -> float:
    """P(positive | s >= threshold) of the population, by the trapezoidal rule."""
    s = np.linspace(threshold, max(threshold, 0.0) + 12 * SPREAD, 20001)
    density = np.exp(-0.5 * (s / SPREAD) ** 2)
    return float(np.trapezoid(density / (1 + np.exp(-s)), s) / np.trapezoid(density, s))
