"""Precision and recall of the reference over the threshold, with the chosen one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 2000  # of the curve, at most


def draw(
    logits: NDArray[Any], labels: NDArray[Any], chosen: dict[str, Any], wanted: float, name: str
) -> Any:
    """Precision and recall of `logit >= t` against t, at up to POINTS samples' logits."""
    from matplotlib.figure import Figure

    order = np.argsort(logits, kind="stable")
    z, positive = np.asarray(logits)[order], np.asarray(labels)[order].astype(np.int64)
    above = positive[::-1].cumsum()[::-1]
    predicted = np.arange(len(z), 0, -1)
    shown = np.unique(np.linspace(0, len(z) - 1, POINTS).astype(int))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(z[shown], (above / predicted)[shown], color="#3366aa", label="precision")
    axes.plot(z[shown], (above / above[0])[shown], color="#ee7733", label="recall")
    axes.axhline(wanted, color="#3366aa", linewidth=0.8, linestyle=":", label=f"wanted {wanted:g}")
    axes.axvline(chosen["logit"], color="black", linewidth=0.8,
                 label=f"threshold {chosen['logit']:.4g}")  # fmt: skip
    axes.set(title=f"{name} against the labels", xlabel="threshold (logit)", ylim=(0, 1.03))
    figure.legend(loc="outside right upper")
    return figure
