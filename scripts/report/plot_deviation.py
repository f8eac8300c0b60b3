"""Draw how a variant's logits deviate from the reference's, over all and around the threshold.

Reads   the logits of both, torch_fp32.threshold.json
Writes  <variant>.deviation.png, and <variant>.deviation.svg beside it, for report.html
Runs    anywhere
Usage   python3 -m scripts.report.plot_deviation --variant onnx_fp16 \
            --logits results/digits/onnx_fp16.logits.npy \
            --reference results/digits/torch_fp32.logits.npy \
            --threshold results/digits/torch_fp32.threshold.json \
            --out results/digits/onnx_fp16.deviation.png
Prints  nothing
"""

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.data.samples import load
from scripts.files import read_json, writing
from scripts.variants import BY_NAME
from scripts.verdicts.thresholds import is_positive

NEAREST = 200  # samples in the picture around the threshold
MARKERS = 500  # a line or cloud of more becomes pixels in the SVG, or the file would be large
# Colours of the SVG that follow the page it stands in; alone, it is black on white.
COLOURS = {
    "#000000": "currentColor", "#ffffff": "var(--back, #ffffff)", "#cccccc": "var(--line, #cccccc)",
    "#3366aa": "var(--blue, #3366aa)", "#cc3311": "var(--red, #cc3311)",
    "#ee7733": "var(--orange, #ee7733)",
}  # fmt: skip
FONTS = re.compile(r"'DejaVu Sans'[^;\"]*sans-serif")
PAINT = re.compile(r"((?:fill|stroke): )(#[0-9a-f]{6})")
REFERENCED = re.compile(r"""(?:url\(#|href="#)([^)"]+)""")


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
    """Write a figure as PNG, and as SVG beside it: the same bytes each time.

    Neither holds the name or version of the program, or a date.
    """
    with writing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    with writing(out.with_suffix(".svg")) as temporary:
        temporary.write_text(svg(figure, out.stem), encoding="utf-8")


def svg(figure: Any, name: str) -> str:
    """The figure as SVG that can stand in a page among others: their ids differ where `name` does.

    It has no background, and its text, axes and series have the colours of the page (COLOURS).
    """
    import io

    import matplotlib

    for artist in figure.findobj(_is_crowded):
        artist.set_rasterized(True)
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.5}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", dpi=110, transparent=True, metadata=metadata)
    return themed(buffer.getvalue(), name)


def _is_crowded(artist: Any) -> bool:
    """Has more markers than can be told apart."""
    if hasattr(artist, "get_offsets"):
        return len(artist.get_offsets()) > MARKERS
    is_marked = hasattr(artist, "get_marker") and artist.get_marker() not in ("None", "", None)
    return is_marked and len(artist.get_xdata()) > MARKERS


def themed(text: str, name: str) -> str:
    """matplotlib's SVG with the page's colours, ids of its own and no rule for other elements."""
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE[^>]*>\s*", "", text, flags=re.DOTALL
    )
    text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:", "")
    used = set(REFERENCED.findall(text))
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    text = re.sub(
        r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text
    )
    text = REFERENCED.sub(lambda m: m[0].replace(f"#{m[1]}", f"#{prefix}-{m[1]}"), text)
    text = PAINT.sub(lambda m: m[1] + COLOURS.get(m[2], m[2]), text)
    text = FONTS.sub("'DejaVu Sans', Verdana, sans-serif", text)
    inherited = 'fill="currentColor" stroke-linejoin="round" stroke-linecap="butt"'
    return text.replace("<svg ", f"<svg {inherited} ", 1)


if __name__ == "__main__":
    main()
