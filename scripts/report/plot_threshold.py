"""Draw precision and recall of the reference over the threshold, with the chosen one.

Reads   torch_fp32.logits.npy, labels.npy, torch_fp32.threshold.json
Writes  threshold.png, and threshold.svg beside it, for report.html
Runs    anywhere
Usage   python3 -m scripts.report.plot_threshold --logits results/digits/torch_fp32.logits.npy \
            --labels results/digits/labels.npy \
            --threshold results/digits/torch_fp32.threshold.json --out results/digits/threshold.png
Prints  nothing
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.data.samples import load
from scripts.files import read_json
from scripts.report.plot_deviation import save

POINTS = 2000  # of the curve, at most


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--logits", required=True, type=click.Path(path_type=Path))
@click.option("--labels", required=True, type=click.Path(path_type=Path))
@click.option("--threshold", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(logits: Path, labels: Path, threshold: Path, out: Path) -> None:
    chosen = read_json(threshold)
    save(draw(load(logits), load(labels), chosen["metrics"], chosen["wanted_precision"]), out)


def draw(logits: NDArray[Any], labels: NDArray[Any], chosen: dict[str, Any], wanted: float) -> Any:
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
    axes.set(title="torch_fp32 against the labels", xlabel="threshold (logit)", ylim=(0, 1.03))
    figure.legend(loc="outside right upper")
    return figure


if __name__ == "__main__":
    main()
