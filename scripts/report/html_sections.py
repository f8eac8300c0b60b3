"""The sections of report.html: from the Markdown of report.md, with boxes, folds and plots."""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import accumulate, count, groupby
from pathlib import Path
from typing import Any

from scripts.report.dossier import flips

ROWS = re.compile(r"<tbody>.*?</tbody>", re.DOTALL)
ROW = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)
VISIBLE = (
    "Variants",
    "How firm the choice is",
    "Gates",
    "What is claimed of new data",
    "Price per flip",
)  # the other sections are folded
FORMULAS = """\
* **Logit** z of a sample: its log-odds of the positive class, ln(p / (1 - p)).
* **Verdict** at the threshold t: positive exactly where z >= t and z is finite.
* **Threshold** t: of those at which the reference has the wanted precision against the labels, the one \
with the highest recall.
* **Flip**: a sample whose verdict in the variant is not the reference's. Both are taken at the \
reference's t; "re-tuned" counts at the variant's own.
* **Deviation** of a sample: z of the variant minus z of the reference; "mean absolute" is the mean of \
its absolute value.
* **Precision** TP / (TP + FP); **recall** TP / (TP + FN); **accuracy** (TP + TN) / samples.
* **p50, p90, p99**: the time that 50, 90, 99 % of the calls did not exceed. **Samples per second**: \
samples divided by the time of all calls together.
"""


def markdown(text: str, plot: Callable[[str], str]) -> str:
    """HTML of a section; HTML in it is text, links are not made, pictures become SVG."""
    from markdown_it import MarkdownIt

    def image(tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
        words = escape(tokens[at].content)
        svg = plot(str(Path(tokens[at].attrs["src"]).with_suffix(".svg")))
        svg = svg.replace("<svg ", f'<svg class="plot" role="img" aria-label="{words}" ', 1)
        return f'<span class="caption">{words}</span>{svg}'

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "autolink", "reference"])
    parser.renderer.rules["image"] = image  # type: ignore[attr-defined]
    html = parser.render(text).replace(' style="text-align:right"', ' class="n"')
    html = re.sub(r'<p><span class="caption">(.*?)</span>(.*?)</p>',
                  r'<figure>\n<figcaption>\1</figcaption>\n<div class="scroll">\2</div>\n</figure>',
                  html, flags=re.DOTALL)  # fmt: skip
    html = html.replace("<table>", '<div class="scroll" tabindex="0">\n<table>')
    return html.replace("</table>", "</table>\n</div>")


def header(text: str, report: dict[str, Any]) -> str:
    """The title; in a box what goes to production, green where it may be released; below it what else is on the first page."""
    title, *paragraphs = [part for part in text.split("\n\n") if part.strip()]
    boxed = 1 + max((i for i, p in enumerate(paragraphs) if p.startswith("**Release:")), default=0)
    by_hand = report["promotion"]
    good = (
        not by_hand["failed_gates"] + by_hand["open_gates"]
        if by_hand
        else report["decision"]["exit"] == 0
    )
    box, notes = (
        markdown("\n\n".join(p), _no_plot) for p in (paragraphs[:boxed], paragraphs[boxed:])
    )
    return (
        f'<header>\n{markdown(title, _no_plot)}<div class="box{"" if good else " warn"}">\n{box}</div>\n'
        + (f'<div class="notes">\n{notes}</div>\n' if notes else "")
        + "</header>\n"
    )


def _no_plot(name: str) -> str:
    raise ValueError(f"the picture {name} stands outside a section")


def section(text: str, report: dict[str, Any], plot: Callable[[str], str]) -> tuple[str, str]:
    """(its heading, its HTML), folded but for VISIBLE."""
    heading, body = text.split("\n", 1)
    title = heading.removeprefix("## ")
    html = ROWS.sub(lambda rows: merged(rows[0]), markdown(body, plot))
    html = ROW.sub(mark(title), html)
    if title not in VISIBLE:
        return title, folded(f"<h2>{title}</h2>", inside(title, report), html, slug(title))
    if title == "Variants":
        words = "What the figures mean, and their formulas"
        html += folded("", words, markdown(FORMULAS, plot), None)
    return title, f'<section id="{slug(title)}">\n<h2>{title}</h2>\n{html}</section>\n'


def merged(rows: str) -> str:
    """Rows of a table one after the other that begin with the same variant name it once."""
    cells = re.findall(r"<tr>\n(<td>.*?</td>)", rows)
    spans = [len(list(same)) for _, same in groupby(cells)]
    starts = dict(zip(accumulate(spans, initial=0), spans, strict=False))
    order = count()

    def row(found: re.Match[str]) -> str:
        span = starts.get(next(order), 0)
        first = found[1].replace("<td>", f'<td rowspan="{span}">') if span > 1 else found[1]
        return f"<tr>\n{first if span else ''}"

    return re.sub(r"<tr>\n(<td>.*?</td>)", row, rows) if max(spans, default=0) > 1 else rows


def mark(title: str) -> Callable[[re.Match[str]], str]:
    """Gives the rows of a table their class: the chosen variant, one not measured, a failed gate."""

    def row(found: re.Match[str]) -> str:
        cells = found[1]
        if title == "Variants" and "<strong>chosen</strong>" in cells:
            return f'<tr class="chosen">{cells}</tr>'
        if title == "Variants" and cells.count(">-</td>") > 2:
            return f'<tr class="absent">{cells}</tr>'
        failed = title == "Gates" and "<strong>" in cells
        return f'<tr class="fails">{cells}</tr>' if failed else found[0]

    return row


def folded(heading: str, words: str, body: str, name: str | None) -> str:
    """A part that opens with a click. `name` stands inside, so that a link to it opens it."""
    place = f' id="{name}"' if name else ""
    return (
        f"<details>\n<summary>{heading}{' ' if heading and words else ''}{words}</summary>\n"
        f'<div class="body"{place}>\n{body}</div>\n</details>\n'
    )


def inside(title: str, report: dict[str, Any]) -> str:
    """A few words on what a folded section holds."""
    rows = {name: row for name, row in report["variants"].items() if row["measured"]}
    where = report["conditions"]
    words: dict[str, Callable[[], str]] = {
        "Flips": lambda: _flips(report),
        "Served by Triton": lambda: listed([n for n, row in rows.items() if row.get("served")]),
        "Latency in process": lambda: f"percentiles and throughput of {len(rows)} variants",
        "Verdicts against the reference and against the labels": lambda: "confusion matrices",
        "Re-tuned thresholds": lambda: listed([n for n, row in rows.items() if row.get("retuning")]),
        "Scored again under other conditions": lambda: _repeats(rows),
        "Margins": lambda: "how far verdicts are from flipping",
        "Ways to choose the threshold": lambda: "what each would cost in recall",
        "Nodes that move verdicts": lambda: listed([n for n, row in rows.items() if row.get("culprits")]),
        "Range of float16": lambda: listed([n for n, row in rows.items() if row.get("range")]),
        "Layer by layer": lambda: listed([n for n, row in rows.items() if row.get("layers")]),
        "Pictures": lambda: "precision and recall, deviations, errors",
        "Conditions": lambda: f"mode {where['mode']}, {where['device']}, {where['threads']} threads",
        "Reproduce": lambda: "the command, and the hashes of what this stands on",
    }  # fmt: skip
    return words[title]() if title in words else ""


def _flips(report: dict[str, Any]) -> str:
    rows: Mapping[str, Any] = report["variants"]
    found = {name: len(samples) for name, samples in flips(report).items()}
    words = [f"{count} of {rows[name]['samples']} for {name}" for name, count in found.items()]
    return "; ".join(words) or "none"


def _repeats(rows: dict[str, Any]) -> str:
    found = {name: row["repeats"]["metrics"]["flips"] for name, row in rows.items()}
    words = [f"{count} verdicts of {name} change" for name, count in found.items() if count]
    return "; ".join(words) or "no verdict changes"


def listed(names: list[str]) -> str:
    return ", ".join(names)


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
