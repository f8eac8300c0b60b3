"""From a model's raw output to the logit: one log-odds of the positive class per sample.

Used by every step that scores, in evaluation and in serving alike.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A probability of exactly 0 or 1 has no finite log-odds. It is placed half a step beyond the last
# number that float32 tells from it: 1 - 2^-25 (log-odds 17.33) and 2^-150 (log-odds -103.97).
BELOW_ONE = 2.0**-25
ABOVE_ZERO = 2.0**-150


def log_odds(raw: NDArray[Any], head: str, positive_class: int) -> NDArray[np.float64]:
    """Log-odds of the positive class, shape (n,), float64, from raw outputs of shape (n, ...).

    logit        (n,) or (n, 1): as it is, negated when positive_class is 0
    two_logits   (n, 2): z_positive - z_other
    multiclass   (n, k): z_positive - logsumexp of the others
    probability  (n,) or (n, 1): log(p / (1 - p)); (n, k): log(p_positive / sum of the others)

    Raises ValueError on another shape, or on a probability outside [0, 1].
    NaN stays NaN: it is for the caller to count.
    """
    z = np.asarray(raw, np.float64)
    columns = _columns(z, head, positive_class)
    z = z.reshape(len(z), columns)
    if head == "probability":
        return _from_probability(z, positive_class)
    if columns == 1:
        return z[:, 0] if positive_class == 1 else -z[:, 0]
    others = np.delete(z, positive_class, axis=1)
    if columns == 2:
        return z[:, positive_class] - others[:, 0]
    top = others.max(axis=1)
    with np.errstate(invalid="ignore"):
        rest = np.log(np.exp(others - top[:, None]).sum(axis=1))
    return z[:, positive_class] - top - rest


def saturated(raw: NDArray[Any], head: str) -> int:
    """How many samples have a probability of exactly 0 or 1: ties that no threshold separates."""
    if head != "probability":
        return 0
    p = np.asarray(raw).reshape(len(raw), -1)
    return int(((p == 0) | (p == 1)).any(axis=1).sum())


def _columns(z: NDArray[Any], head: str, positive_class: int) -> int:
    if z.ndim == 1 or (z.ndim == 2 and z.shape[1] == 1):
        if head in ("logit", "probability") and positive_class <= 1:
            return 1
    elif z.ndim == 2:
        k = z.shape[1]
        fits = k == 2 if head == "two_logits" else head in ("multiclass", "probability")
        if fits and positive_class < k:
            return k
    wanted = {
        "logit": "(n,) or (n, 1)",
        "two_logits": "(n, 2)",
        "multiclass": f"(n, k) with k > {max(positive_class, 1)}",
        "probability": f"(n, k) with k > {positive_class}"
        if positive_class > 1
        else "(n,), (n, 1) or (n, k)",
    }[head]
    raise ValueError(f"the output has the shape {z.shape}, and the head {head!r} needs {wanted}")


def _from_probability(p: NDArray[np.float64], positive_class: int) -> NDArray[np.float64]:
    if ((p < 0) | (p > 1)).any():
        worst = float(p[(p < 0) | (p > 1)][0])
        raise ValueError(
            f"the head is 'probability', and the output holds {worst!r}, which is none; "
            "a logit, perhaps"
        )
    if p.shape[1] == 1:
        one = p[:, 0]
        p = np.stack([np.where(one == 1, BELOW_ONE, 1 - one), one], axis=1)
    yes = p[:, positive_class]
    no = np.delete(p, positive_class, axis=1).sum(axis=1)
    return np.log(np.maximum(yes, ABOVE_ZERO)) - np.log(np.maximum(no, ABOVE_ZERO))
