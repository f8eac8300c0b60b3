"""Draw the pictures of one variant: as PNG, and as SVG beside it, for report.html.

threshold  precision and recall of the reference over the threshold: threshold.png
deviation  how the logits deviate from the reference's: <variant>.deviation.png
layers     error and magnitude of every inner tensor: <variant>.layers.png
culprits   how far each node, set back to float32, moves the logits: <variant>.culprits.png

Reads   the logits of the variant and of the reference, <reference>.threshold.json, labels.npy,
        <variant>.layers.json, <variant>.culprits.json: what the pictures asked for need
Writes  the pictures, in --results
Runs    anywhere
Usage   python3 -m scripts.report.draw_pictures --variant onnx_fp16 --results results/digits \
            --reference torch_fp32 deviation layers culprits
Prints  nothing
"""

from pathlib import Path
from typing import Any

import click

from scripts.data.samples import load
from scripts.files import read_json
from scripts.report import plot_culprits, plot_deviation, plot_layers, plot_threshold
from scripts.report.pictures import save
from scripts.variants import BY_NAME

KINDS = ("threshold", "deviation", "layers", "culprits")


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("kinds", nargs=-1, required=True, type=click.Choice(KINDS))
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option("--results", required=True, type=click.Path(path_type=Path))
@click.option("--reference", required=True, type=click.Choice(list(BY_NAME)))
def main(kinds: tuple[str, ...], variant: str, results: Path, reference: str) -> None:
    figures = {kind: draw(kind, variant, results, reference) for kind in kinds}
    for kind, figure in figures.items():
        name = "threshold.png" if kind == "threshold" else f"{variant}.{kind}.png"
        save(figure, results / name)


def draw(kind: str, variant: str, results: Path, reference: str) -> Any:
    """One figure, from the files in `results`."""
    if kind == "layers":
        return plot_layers.draw(read_json(results / f"{variant}.layers.json"))
    if kind == "culprits":
        return plot_culprits.draw(read_json(results / f"{variant}.culprits.json"))
    chosen = read_json(results / f"{reference}.threshold.json")
    right = load(results / f"{reference}.logits.npy")
    if kind == "deviation":
        logits = load(results / f"{variant}.logits.npy")
        return plot_deviation.draw(logits, right, chosen["metrics"]["logit"], variant, reference)
    wanted = chosen["wanted_precision"]
    return plot_threshold.draw(
        right, load(results / "labels.npy"), chosen["metrics"], wanted, reference
    )


if __name__ == "__main__":
    main()
