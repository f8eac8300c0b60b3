"""For `make bench`: the whole decision on ten million logits and five variants, and the guarantees.

Ours: the threshold, each variant's comparison (flips, deviation, confusion, re-tuning) and the
claims (bounds, McNemar's test, forecast, certificate). Theirs: the same quantities as a good engineer
would get them from scikit-learn, SciPy and NumPy, nothing done twice that all variants share.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from math import isclose, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.given import CALIBRATED, LOGITS, Data, Parts, added_memory, make, store
from scripts.bench.simulate_guarantees import bound_violations, guarantee_violations
from scripts.bench.theirs import theirs
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
SETUP = """
from pathlib import Path
import scipy.stats, sklearn.model_selection
from scripts.bench.decision import ours
from scripts.bench.given import load
from scripts.bench.theirs import theirs
data = load(Path({folder!r}))
"""
Row = tuple[tuple[str, float, str, float], dict[str, Any]]


def rows(folder: Path) -> list[Row]:
    """((what, measured, relation, bound), more) of each row; `folder` takes the arrays."""
    return [*decision(folder), *simulations()]


def decision(folder: Path) -> list[Row]:
    """Time and added memory of both on the same arrays. ValueError where their numbers differ."""
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
    peaks = [
        added_memory(SETUP.format(folder=str(folder)), f"{name}(data)")
        for name in ("ours", "theirs")
    ]
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
