"""Write the report for people from report.json.

Reads   report.json
Writes  report.md; pictures are linked by their path from it
Runs    anywhere
Usage   python3 -m scripts.report.write_report results/digits/report.json --pictures digits/ \
            --out results/report.md
Prints  the path of the report
"""

from pathlib import Path
from typing import Any

import click

from scripts.files import read_json, writing
from scripts.release.gates import LEAST_SUPPORT
from scripts.report.claimed import (
    get_claims,
    get_margins,
    get_policies,
    get_release,
    get_sensitivity,
)
from scripts.report.conditions import get_repeats, get_served
from scripts.report.repaired import get_price, get_range, get_repair
from scripts.report.sections import (
    get_conditions,
    get_flips,
    get_gates,
    get_latency,
    get_layers,
    get_quality,
    get_reproduce,
    get_retuning,
    number,
)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("report_json", type=click.Path(path_type=Path))
@click.option("--pictures", default="", help="Folder of the pictures, seen from the report.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(report_json: Path, pictures: str, out: Path) -> None:
    text = render(read_json(report_json), pictures)
    with writing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"report: {out}")


def render(report: dict[str, Any], pictures: str) -> str:
    """The whole report as Markdown: a pure function of report.json."""
    return "\n".join(sections(report, pictures))


def sections(report: dict[str, Any], pictures: str) -> list[str]:
    """Its parts in their order: the head, then one for each heading."""
    parts = [
        get_head(report),
        get_table(report),
        get_sensitivity(report),
        get_gates(report),
        get_claims(report),
        get_price(report),
        get_served(report),
        get_latency(report),
        get_quality(report),
        get_flips(report),
        get_margins(report),
        get_policies(report),
        get_retuning(report),
        get_repeats(report),
        get_repair(report),
        get_range(report),
        get_layers(report),
        get_plots(report, pictures),
        get_conditions(report),
        get_reproduce(report),
    ]
    return [part for part in parts if part]


def get_head(report: dict[str, Any]) -> str:
    """Title, recommendation, its reasons, and what was not measured: the first ten lines."""
    chosen, by_hand = report["recommendation"], report["promotion"]
    lines = [f"# Verdict report: {report['case']}", ""]
    if by_hand:
        fails = ", ".join(by_hand["failed_gates"])
        lines += [
            f"**Promoted by hand to production: `{by_hand['variant']}`**, with the threshold logit >= "
            f"{by_hand['threshold']:.6g}. "
            + (f"**It fails the gates: {fails}.** " if fails else "")
            + (
                f"It is not shown to pass: {', '.join(by_hand['open_gates'])}. "
                if by_hand["open_gates"]
                else ""
            )
            + ("" if fails or by_hand["open_gates"] else "It passes every gate. ")
            + "What follows is the recommendation that this overrides.",
            "",
        ]
    if chosen["variant"]:
        lines.append(f"**To production: `{chosen['variant']}`**, with the threshold logit >= "
                     f"{chosen['threshold']:.6g}. {_sentence('; '.join(chosen['reasons']))}")  # fmt: skip
    else:
        lines.append(f"**To production: nothing new.** {_sentence(chosen['reasons'][0])}")
    lines += ["", *get_release(report)]
    support = report["threshold"]["predicted_positives"]
    if support < LEAST_SUPPORT:
        lines += [
            "",
            f"**Little evidence:** the threshold rests on {support} positive verdict(s). Below "
            f"{LEAST_SUPPORT}, not even a flawless precision shows more than chance would; add "
            "labelled samples before relying on it.",
        ]
    missing = [name for name, row in report["variants"].items() if _absent(row)]
    if missing:
        lines += ["", f"**Not measured here:** {', '.join(f'`{name}`' for name in missing)}. "
                      + _why_missing(report)]  # fmt: skip
    if report["conditions"]["served"] == "no":
        lines += ["", "**Not served:** SERVED=no was asked for, so whether Triton gives the same verdicts "
                      "is not known."]  # fmt: skip
    if report["conditions"]["device"] == "cpu":
        text = "All figures were taken on a CPU: they speak for serving on a CPU."
        if report["variants"].get("onnx_fp16", {}).get("measured"):
            text += (
                " ONNX Runtime computes much of float16 in float32 there: before a GPU serves "
                "`onnx_fp16`, run it on that GPU."
            )
        lines += ["", text]
    return "\n".join(lines) + "\n"


def _absent(row: dict[str, Any]) -> bool:
    """Left out or lacking something here; not: a step found no reason to make it."""
    return not row["measured"] and row["reason"].startswith(("not measured", "left out"))


def _why_missing(report: dict[str, Any]) -> str:
    reasons = {row["reason"] for row in report["variants"].values() if _absent(row)}
    advice = ""
    if any("GPU" in reason or "containers" in reason for reason in reasons):
        advice = (
            f" On a host with an NVIDIA GPU and Docker, `make all CASE={report['case']} MODE=docker "
            "GPU=yes` measures the others; `make doctor` says what it needs."
        )
    return (
        _sentence(
            "; ".join(sorted(reasons))
            .replace("not measured here: needs", "they need")
            .replace("not measured here: ", "")
        )
        + advice
    )


def get_table(report: dict[str, Any]) -> str:
    """One row for every variant of the list."""
    threshold = report["threshold"]
    sizes = _sizes(report)
    lines = [
        "## Variants",
        "",
        f"{report['samples']} samples, {report['positives']} positive. Threshold on the reference "
        f"`{report['reference']}`: logit >= {threshold['logit']:.6g} (probability "
        f"{_sigmoid(threshold['logit']):.4f}), precision {threshold['precision']:.4f} "
        f"({threshold['true_positives']} of {threshold['predicted_positives']}; wanted "
        f"{report['wanted_precision']:g}), recall {threshold['recall']:.4f}.",
        "",
        "| variant | flips | deviation of the logit: mean | mean absolute | min | max | "
        + " | ".join(f"p50 at batch {size}, ms" for size in sizes)
        + " | size, MB | outcome |",
        "|---|--:|--:|--:|--:|--:|" + "--:|" * len(sizes) + "--:|---|",
    ]
    for name, row in report["variants"].items():
        lines.append(_row(name, row, report, sizes))
    return "\n".join(lines) + "\n"


def _row(name: str, row: dict[str, Any], report: dict[str, Any], sizes: list[str]) -> str:
    chosen = report["recommendation"]
    outcome = "**chosen**" if name == chosen["variant"] else chosen["not_chosen"][name]
    if not row["measured"]:
        return f"| `{name}` |" + " - |" * (6 + len(sizes)) + f" {outcome} |"
    deviation, proof = row["deviation"], row["precision_proof"]
    flips = str(row["flips"]["total"])
    if row["retuned_threshold"] is not None:
        flips += f" ({row['retuning']['flips_after']} re-tuned)"
    cells = [f"`{name}`", flips]
    cells += [number(deviation[key]) for key in ("mean", "mean_absolute", "min", "max")]
    for size in sizes:
        cells.append(f"{row['latency'][size]['latency_p50_ms']:.3g}")
    cells.append(f"{proof['file_bytes'] / 1e6:.3g}" if proof else "-")
    return "| " + " | ".join([*cells, outcome]) + " |"


def get_plots(report: dict[str, Any], pictures: str) -> str:
    """The pictures, which other steps draw."""
    lines = [
        "## Pictures",
        "",
        f"![Precision and recall over the threshold]({pictures}threshold.png)",
        "",
    ]
    for name, row in report["variants"].items():
        if row["measured"] and name != report["reference"]:
            lines += [f"![Deviation of the logits of {name}]({pictures}{name}.deviation.png)", ""]
            if row["culprits"] and row["culprits"]["first"]:
                lines += [
                    f"![Nodes of {name} that move verdicts]({pictures}{name}.culprits.png)",
                    "",
                ]
            if row["layers"]:
                lines += [f"![Error of {name} layer by layer]({pictures}{name}.layers.png)", ""]
    return "\n".join(lines)


def _sizes(report: dict[str, Any]) -> list[str]:
    return sorted(report["variants"][report["reference"]]["latency"], key=int)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _sigmoid(logit: float) -> float:
    import math

    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


if __name__ == "__main__":
    main()
