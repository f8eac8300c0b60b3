"""A headless Chromium that opens a file: what it draws, what it computes, what it complains about."""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((path for name in NAMES if (path := shutil.which(name))), None)
WHY_NOT = f"no browser here: none of {', '.join(NAMES)}"

# Runs in a page around the one that is measured, in which no script may run.
MEASURE = """
const parts = c => c.match(/[0-9.]+/g).map(Number);
const luminance = c => { const [r, g, b] = parts(c).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b };
const ratio = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05) };
function measure(page) {
  const view = page.defaultView, texts = [];
  const ground = node => { for (; node; node = node.parentElement) {
    const c = view.getComputedStyle(node).backgroundColor, p = parts(c);
    if (p.length < 4 || p[3] > 0) return c }
    return 'rgb(255, 255, 255)' };
  const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, style = view.getComputedStyle(node);
    if (!walk.currentNode.data.trim() || !node.getClientRects().length) continue;
    const colour = node.namespaceURI.endsWith('svg') ? style.fill : style.color;
    texts.push([ratio(colour, ground(node)), walk.currentNode.data.trim().slice(0, 40)]) }
  return { texts: texts.length, worst: texts.sort((a, b) => a[0] - b[0])[0],
    width: page.documentElement.clientWidth, content: page.documentElement.scrollWidth,
    back: view.getComputedStyle(page.body).backgroundColor, shown: page.querySelectorAll('img').length,
    broken: [...page.images].filter(i => !i.naturalWidth).length }
}
document.querySelector('iframe').onload = event => {
  document.querySelector('pre').textContent = JSON.stringify(measure(event.target.contentDocument)) };
"""


def run(profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One start of the browser. `profile`: a folder of its own, which it may fill."""
    assert PROGRAM
    common = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
              "--allow-file-access-from-files", "--enable-logging=stderr",
              f"--user-data-dir={profile}")  # fmt: skip
    done = subprocess.run([PROGRAM, *common, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def scheme(dark: bool) -> str:
    """What the page is told the reader prefers."""
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def screenshot(page: Path, width: int, height: int, dark: bool, folder: Path) -> NDArray[np.uint8]:
    """The pixels of the top of the page, shape (height, width, 3)."""
    from PIL import Image

    out = folder / f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"
    size = f"--window-size={width},{height}"
    run(folder / "profile", scheme(dark), size, f"--screenshot={out}", page.as_uri())
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB"))


def measured(page: Path, width: int, dark: bool, folder: Path) -> dict[str, Any]:
    """What MEASURE finds in the page in a window of that width."""
    frame = f'<iframe src="{escape(page.as_uri())}" style="width:{width}px;height:800px;border:0">'
    around = folder / "around.html"
    around.write_text(
        f'<!DOCTYPE html><meta name="color-scheme" content="light dark"><body style="margin:0">'
        f"<pre></pre>{frame}</iframe><script>{MEASURE}</script>"
    )
    options = ("--virtual-time-budget=5000", "--window-size=1400,900", "--dump-dom")
    done = run(folder / "profile", scheme(dark), *options, around.as_uri())
    found = re.search(r"<pre>(.+?)</pre>", done.stdout)
    assert found, f"nothing was measured: {done.stderr}"
    result: dict[str, Any] = json.loads(found[1].replace("&lt;", "<").replace("&amp;", "&"))
    return result


def complaints(page: Path, folder: Path) -> list[str]:
    """What the browser writes to the console of the page."""
    done = run(folder / "profile", "--dump-dom", page.as_uri())
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def printed_pages(page: Path, folder: Path) -> int:
    """How many pages the page fills on paper."""
    out = folder / f"{page.stem}.pdf"
    run(folder / "profile", f"--print-to-pdf={out}", page.as_uri())
    return len(re.findall(rb"/Type\s*/Page\b", out.read_bytes()))
