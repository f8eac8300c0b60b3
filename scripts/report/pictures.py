"""A figure as PNG and as SVG: the same bytes each time, in the colours of the page it stands in."""

import re
from pathlib import Path
from typing import Any

from scripts.files import writing

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


def save(figure: Any, out: Path) -> None:
    """Write a figure as PNG, and as SVG beside it: the same bytes each time.

    Neither holds the name or version of the program, or a date.
    """
    with writing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    figure.set_layout_engine("none")  # it is laid out once for both
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
