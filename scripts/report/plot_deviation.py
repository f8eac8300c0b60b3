"""How a variant's logits deviate from the reference's, over all and around the threshold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.verdicts.thresholds import is_positive

NEAREST = 200  # samples in the picture around the threshold


def draw(
    logits: NDArray[Any], reference: NDArray[Any], threshold: float, name: str, other: str
) -> Any:
    """A figure of two panels: histogram of all deviations; the nearest samples' logits."""
    from matplotlib.figure import Figure

    finite = np.isfinite(logits)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    delta = (logits - reference)[finite]
    left.hist(delta, bins=60, color="#3366aa")
    left.axvline(0, color="black", linewidth=0.8)
    left.set(title=f"{name}: deviation of {len(delta)} logits",
             xlabel=f"logit of {name} minus logit of {other}", ylabel="samples")  # fmt: skip
    left.ticklabel_format(axis="x", scilimits=(-2, 3))
    near = np.argsort(np.abs(reference - threshold), kind="stable")[:NEAREST]
    near = near[finite[near]]
    z, s = logits[near], reference[near]
    flipped = is_positive(z, threshold) != is_positive(s, threshold)
    right.scatter(s[~flipped], z[~flipped], s=14, color="#3366aa", label="same verdict")
    if flipped.any():
        right.scatter(s[flipped], z[flipped], s=40, color="#cc3311", marker="x", label="flipped")
    right.axvline(threshold, color="black", linewidth=0.8, label="threshold")
    right.axhline(threshold, color="black", linewidth=0.8)
    right.set(title=f"The {len(near)} samples nearest to the threshold",
              xlabel=f"logit of {other}", ylabel=f"logit of {name}")  # fmt: skip
    right.legend(loc="upper left", framealpha=0.6)
    return figure
