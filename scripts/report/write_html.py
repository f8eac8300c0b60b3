"""Write the report as one HTML file that can be sent on: it needs no network and runs no script.

Reads   report.json, and from its folder torch_fp32.logits.npy and the pictures (.svg);
        case.toml and the samples, for small pictures of those that flip
Writes  report.html: the text of report.md, the plots, the flipped and the nearest samples
Runs    anywhere
Usage   python3 -m scripts.report.write_html results/digits/report.json --case data/digits/case.toml \
            --samples results/digits/samples.json --out results/digits/report.html
Prints  report: results/digits/report.html
"""

import re
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import click
import numpy as np

from scripts.case.read_case import read_case
from scripts.data.samples import Samples, load
from scripts.files import read_json, writing
from scripts.report.dossier import NEAREST, Picture, dossier, flips, plain
from scripts.report.html_sections import VISIBLE, folded, header, section, slug
from scripts.report.html_style import style
from scripts.report.thumbnails import thumbnail
from scripts.report.write_report import sections

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("report_json", type=click.Path(path_type=Path))
@click.option("--case", "case_toml", required=True, type=click.Path(path_type=Path))
@click.option("--samples", "index", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(report_json: Path, case_toml: Path, index: Path, out: Path) -> None:
    report = read_json(report_json)
    case = read_case(case_toml)
    data = Samples(case, index)
    nearest = nearest_samples(
        report, load(report_json.with_name(f"{report['reference']}.logits.npy")), data
    )
    picture = cache(lambda i: thumbnail(case, data, i))
    text = page(report, lambda name: read_plot(report_json.with_name(name)), nearest, picture)
    with writing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"report: {out}")


def nearest_samples(report: dict[str, Any], logits: Any, data: Any) -> list[dict[str, Any]]:
    """The samples whose reference's logit is nearest to the threshold, the nearest first.

    `data` has `labels` and `names`. Raises click.ClickException where the counts differ.
    """
    if not len(logits) == len(data.labels) == report["samples"]:
        raise click.ClickException(
            f"There are {len(logits)} logits of the reference and {len(data.labels)} labels for the "
            f"{report['samples']} samples of the report. Run: make all CASE={report['case']}"
        )
    distance = np.asarray(logits, np.float64) - report["threshold"]["logit"]
    order = np.argsort(np.abs(distance), kind="stable")[:NEAREST].tolist()
    return [
        {"index": i, "label": int(data.labels[i]), "reference_logit": float(logits[i]),
         "reference_distance": float(distance[i])} | ({"name": data.names[i]} if data.names else {})
        for i in order if np.isfinite(distance[i])
    ]  # fmt: skip


def read_plot(path: Path) -> str:
    """An SVG as it can stand in HTML: the element alone, without a size or namespace of its own."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise click.ClickException(f"{path} is missing; run `make all` to build it.") from None
    text = text[text.index("<svg ") :]
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height|xmlns|version)="[^"]*"', "", head)
    return re.sub(r">\s+<", ">\n<", f"{head}>{rest}").strip()


def page(
    report: dict[str, Any], plot: Callable[[str], str], nearest: list[dict[str, Any]], picture: Picture
) -> str:  # fmt: skip
    """The whole file. `plot` gives the SVG of a name, `picture` the small picture of a sample."""
    head, *rest = sections(escaped(report), "")
    title = f"Verdict report: {report['case']}"
    parts = [section(text, report, plot) for text in rest]
    place = next((i for i, (name, _) in enumerate(parts) if name not in VISIBLE), len(parts))
    parts.insert(place, ("Samples", samples(dossier(report, nearest, picture), report)))
    links = "".join(f'<li><a href="#{slug(name)}">{name}</a></li>\n' for name, _ in parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n<main>\n"
        f'{header(head, report)}<nav aria-label="Contents">\n<ul>\n{links}</ul>\n</nav>\n'
        f"{''.join(html for _, html in parts)}</main>\n</body>\n</html>\n"
    )


def escaped(report: dict[str, Any]) -> dict[str, Any]:
    """The report with the names of samples and files so that Markdown takes them as they are."""
    variants = {}
    for variant, row in report["variants"].items():
        if row["measured"]:
            found = [
                flip | ({"name": literal(flip["name"])} if "name" in flip else {})
                for flip in row["flips"]["samples"]
            ]
            row = row | {"flips": row["flips"] | {"samples": found}}
        variants[variant] = row
    inputs = {literal(path): digest for path, digest in report["inputs"].items()}
    return report | {"variants": variants, "inputs": inputs}


def literal(name: str) -> str:
    """A name on one line, each of its punctuation marks escaped for Markdown."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", plain(name))


def samples(groups: list[tuple[str, str]], report: dict[str, Any]) -> str:
    """The cards, a folded part for each variant that flips and one for the nearest samples."""
    words = "" if flips(report) else "<p>No verdict flips in any variant that was measured.</p>\n"
    parts = "".join(folded(f"<h3>{title}</h3>", "", html, None) for title, html in groups)
    return f'<section id="{slug("Samples")}">\n<h2>Samples</h2>\n{words}{parts}</section>\n'


if __name__ == "__main__":
    main()
