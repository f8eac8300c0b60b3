"""The part of report.html on single samples: a card for each that flips or is nearest to the threshold."""

from base64 import b64encode
from collections.abc import Callable
from html import escape
from typing import Any

from scripts.report.sections import number

SHOWN = 20  # flips of a variant
NEAREST = 10  # samples nearest to the threshold, flipped or not

# What a card shows of a sample: its picture; None: it has none. ValueError: a sentence why not.
Picture = Callable[[int], bytes | None]


def dossier(
    report: dict[str, Any], nearest: list[dict[str, Any]], picture: Picture
) -> list[tuple[str, str]]:
    """(title, HTML of its cards) for each variant with flips, then for the nearest samples.

    `nearest`: index, label, reference_logit, reference_distance and, of images, name.
    """
    flipped = flips(report)
    by_sample: dict[int, dict[str, dict[str, Any]]] = {}
    for variant, found in flipped.items():
        for flip in found:
            by_sample.setdefault(flip["index"], {})[variant] = flip
    groups = []
    for variant, found in flipped.items():
        cards = [card(flip, by_sample[flip["index"]], picture) for flip in found[:SHOWN]]
        samples = report["variants"][variant]["samples"]
        title = f"{len(found)} of {samples} flip in <code>{escape(variant)}</code>"
        groups.append((title, grid(cards) + _more(report, variant, len(found))))
    cards = [card(one, by_sample.get(one["index"], {}), picture) for one in nearest]
    words = f"The {len(nearest)} nearest to the threshold" if len(nearest) > 1 else "The nearest"
    return [*groups, (words, grid(cards))] if nearest else groups


def flips(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """variant -> its flipped samples, nearest to the threshold first; without those that flip none."""
    rows = {name: row for name, row in report["variants"].items() if row["measured"]}
    found = {name: row["flips"]["samples"] for name, row in rows.items()}
    return {name: samples for name, samples in found.items() if samples}


def _more(report: dict[str, Any], variant: str, total: int) -> str:
    """Where the flips stand that have no card, and what re-tuning leaves of them."""
    words = []
    if total > SHOWN:
        words.append(
            f"The {SHOWN} nearest to the threshold are shown; {total - SHOWN} more stand in "
            f"<code>results/{escape(report['case'])}/{escape(variant)}.verdicts.json</code>."
        )
    if report["variants"][variant].get("retuned_threshold") is not None:
        moved = report["variants"][variant]["retuned_threshold"]
        words.append(
            "These flip at the threshold of the reference; with the variant&#x27;s own, "
            f"{moved:.6g}, {report['variants'][variant]['retuning']['flips_after']} do."
        )
    return f"<p>{' '.join(words)}</p>\n" if words else ""


def grid(cards: list[str]) -> str:
    return f'<ul class="cards">\n{"".join(cards)}</ul>\n'


def card(sample: dict[str, Any], flipped_by: dict[str, dict[str, Any]], picture: Picture) -> str:
    """One sample: picture, name or number, label, logits, distance to the threshold."""
    number_only = f"sample {sample['index']}"
    name = sample.get("name")
    title = f"<bdi>{escape(plain(name))}</bdi>" if name is not None else number_only
    below = f"<p>{number_only}</p>" if name is not None else ""
    facts = [("label", {0: "negative", 1: "positive"}.get(sample["label"], "none"))]
    facts.append(("reference logit", f"{sample['reference_logit']:.6g}"))
    facts.append(("to threshold", f"{sample['reference_distance']:+.3g}"))
    rows = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in facts)
    for variant, flip in flipped_by.items():
        logit = number(flip["variant_logit"], 6)
        rows += (
            f'<div class="flip"><dt><code>{escape(variant)}</code> flips</dt><dd>{logit}</dd></div>'
        )
    rows += "" if flipped_by else "<div><dt>flips in</dt><dd>no variant</dd></div>"
    return f"<li>{_shown(picture, sample['index'])}<div><h4>{title}</h4>{below}<dl>{rows}</dl></div></li>\n"


def _shown(picture: Picture, index: int) -> str:
    try:
        content = picture(index)
    except ValueError as error:
        return f'<p class="gone">{escape(str(error))}</p>'
    if content is None:
        return ""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    data = b64encode(content).decode("ascii")
    return f'<img alt="" src="data:image/{kind};base64,{data}">'


def plain(text: str) -> str:
    """A name as one line that shows what it is: what is not printable, as its code."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
