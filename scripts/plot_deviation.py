"""Draw how a variant's logits deviate from the reference's, over all and around the threshold.

Reads   the logits of both, torch_fp32.threshold.json
Writes  <variant>.deviation.png
Runs    anywhere
Usage   python3 -m scripts.plot_deviation --variant onnx_fp16 \
            --logits results/digits/onnx_fp16.logits.npy \
            --reference results/digits/torch_fp32.logits.npy \
            --threshold results/digits/torch_fp32.threshold.json \
            --out results/digits/onnx_fp16.deviation.png
Prints  nothing
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.files import read_json, writing
from scripts.samples import load
from scripts.thresholds import is_positive
from scripts.variants import BY_NAME

NEAREST = 200  # samples in the picture around the threshold


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option("--logits", required=True, type=click.Path(path_type=Path))
@click.option("--reference", required=True, type=click.Path(path_type=Path))
@click.option("--threshold", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(variant: str, logits: Path, reference: Path, threshold: Path, out: Path) -> None:
    figure = draw(load(logits), load(reference), read_json(threshold)["metrics"]["logit"], variant)
    save(figure, out)


def draw(logits: NDArray[Any], reference: NDArray[Any], threshold: float, name: str) -> Any:
    """A figure of two panels: histogram of all deviations; the nearest samples' logits."""
    from matplotlib.figure import Figure

    finite = np.isfinite(logits)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    delta = (logits - reference)[finite]
    left.hist(delta, bins=60, color="#3366aa")
    left.axvline(0, color="black", linewidth=0.8)
    left.set(title=f"{name}: deviation of {len(delta)} logits",
             xlabel=f"logit of {name} minus logit of torch_fp32", ylabel="samples")  # fmt: skip
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
              xlabel="logit of torch_fp32", ylabel=f"logit of {name}")  # fmt: skip
    right.legend(loc="upper left", framealpha=0.6)
    return figure


def save(figure: Any, out: Path) -> None:
    """Write a figure as PNG, without the name of the program in it: the same bytes each time."""
    with writing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
