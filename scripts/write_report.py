"""Write the report for people from report.json.

Reads   report.json
Writes  report.md; pictures are linked by their path from it
Runs    anywhere
Usage   python3 -m scripts.write_report results/digits/report.json --pictures digits/ \
            --out results/report.md
Prints  the path of the report
"""

from pathlib import Path
from typing import Any

import click

from scripts.files import read_json, writing

SHOWN_FLIPS = 20


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
    parts = [
        get_head(report),
        get_table(report),
        get_gates(report),
        get_quality(report),
        get_flips(report),
        get_retuning(report),
        get_plots(report, pictures),
        get_conditions(report),
        get_reproduce(report),
    ]
    return "\n".join(part for part in parts if part)


def get_head(report: dict[str, Any]) -> str:
    """Title, recommendation, its reasons, and what was not measured: the first ten lines."""
    chosen = report["recommendation"]
    lines = [f"# Verdict report: {report['case']}", ""]
    if chosen["variant"]:
        lines.append(f"**To production: `{chosen['variant']}`**, with the threshold logit >= "
                     f"{chosen['threshold']:.6g}. {_sentence('; '.join(chosen['reasons']))}")  # fmt: skip
    else:
        lines.append(f"**To production: nothing new.** {_sentence(chosen['reasons'][0])}")
    missing = [name for name, row in report["variants"].items() if not row["measured"]]
    if missing:
        lines += ["", f"**Not measured here:** {', '.join(f'`{name}`' for name in missing)}. "
                      + _why_missing(report)]  # fmt: skip
    if report["conditions"]["device"] == "cpu":
        lines += ["", "All figures were taken on a CPU: they speak for serving on a CPU. ONNX "
                      "Runtime computes much of float16 in float32 there, so `onnx_fp16` still has "
                      "to be run on the GPU that will serve it."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _why_missing(report: dict[str, Any]) -> str:
    reasons = {row["reason"] for row in report["variants"].values() if not row["measured"]}
    advice = ""
    if any("GPU" in reason for reason in reasons):
        advice = (
            f" On a host with an NVIDIA GPU, `make all CASE={report['case']} GPU=yes` measures the "
            "others on it; TensorRT engines are not built by this version."
        )
    return _sentence("; ".join(sorted(reasons)).replace("not measured here: ", "")) + advice


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
        "| variant | flips | deviation of the logit: mean | min | max | "
        + " | ".join(f"p50 / p99 at batch {size}, ms" for size in sizes)
        + " | size, MB | outcome |",
        "|---|--:|--:|--:|--:|" + "--:|" * len(sizes) + "--:|---|",
    ]
    for name, row in report["variants"].items():
        lines.append(_row(name, row, report, sizes))
    return "\n".join(lines) + "\n"


def _row(name: str, row: dict[str, Any], report: dict[str, Any], sizes: list[str]) -> str:
    chosen = report["recommendation"]
    outcome = "**chosen**" if name == chosen["variant"] else chosen["not_chosen"][name]
    if not row["measured"]:
        return f"| `{name}` |" + " - |" * (5 + len(sizes)) + f" {outcome} |"
    deviation, proof = row["deviation"], row["precision_proof"]
    cells = [f"`{name}`", str(row["flips"]["total"])]
    cells += [_number(deviation[key]) for key in ("mean", "min", "max")]
    for size in sizes:
        timing = row["latency"][size]
        cells.append(f"{timing['latency_p50_ms']:.3g} / {timing['latency_p99_ms']:.3g}")
    cells.append(f"{proof['file_bytes'] / 1e6:.2f}" if proof else "-")
    return "| " + " | ".join([*cells, outcome]) + " |"


def get_gates(report: dict[str, Any]) -> str:
    """Every gate of every candidate, with what was found."""
    lines = ["## Gates", "", "| variant | gate | passed | found |", "|---|---|---|---|"]
    for name, row in report["variants"].items():
        for gate in row.get("gates", []):
            passed = "yes" if gate["passed"] else "**no**"
            lines.append(f"| `{name}` | {gate['gate']} | {passed} | {gate['found']} |")
    return "\n".join(lines) + "\n"


def get_quality(report: dict[str, Any]) -> str:
    """Confusion matrices and the numbers from them, against the reference and the labels."""
    lines = [
        "## Verdicts against the reference and against the labels",
        "",
        "All at the threshold of the reference. TP, FP, FN, TN count verdicts, with the reference's "
        "verdicts (or the labels) taken as true.",
        "",
        "| variant | against | TP | FP | FN | TN | accuracy | precision | recall |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in report["variants"].items():
        for key, title in (("vs_reference", "reference"), ("vs_labels", "labels")):
            if row["measured"]:
                found = row[key]
                counts = " | ".join(str(found[count]) for count in ("tp", "fp", "fn", "tn"))
                rates = " | ".join(
                    "undefined" if found[rate] is None else f"{found[rate]:.4f}"
                    for rate in ("accuracy", "precision", "recall")
                )
                lines.append(f"| `{name}` | {title} | {counts} | {rates} |")
    notes = [f"`{name}`: {row['saturated']} probabilities are exactly 0 or 1, ties that no "
             "threshold can separate." for name, row in report["variants"].items()
             if row.get("saturated")]  # fmt: skip
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def get_flips(report: dict[str, Any]) -> str:
    """Each flipped sample, nearest to the threshold first."""
    lines = ["## Flips", ""]
    for name, row in report["variants"].items():
        if not row["measured"] or name == report["reference"]:
            continue
        flips, near = row["flips"], row["deviation"]["near_threshold"]
        lines += [
            f"**`{name}`**: {flips['total']} of {row['samples']} verdicts flip "
            f"({flips['positive_to_negative']} from positive to negative, "
            f"{flips['negative_to_positive']} from negative to positive). Among the "
            f"{near['samples']} samples nearest to the threshold (within {near['width']:.3g}) the "
            f"mean absolute deviation is {_number(near['mean_absolute'])}, over all samples "
            f"{_number(row['deviation']['mean_absolute'])}.",
            "",
        ]
        if flips["samples"]:
            lines += _flip_table(flips["samples"], report["case"], name)
    return "\n".join(lines)


def _flip_table(samples: list[dict[str, Any]], case: str, name: str) -> list[str]:
    lines = [
        "| sample | label | reference logit | variant logit | reference to threshold | name |",
        "|--:|--:|--:|--:|--:|---|",
    ]
    for flip in samples[:SHOWN_FLIPS]:
        lines.append(
            f"| {flip['index']} | {flip['label']} | {flip['reference_logit']:.6g} | "
            f"{_number(flip['variant_logit'])} | {flip['reference_distance']:+.3g} | "
            f"{flip.get('name', '')} |"
        )
    if len(samples) > SHOWN_FLIPS:
        more = len(samples) - SHOWN_FLIPS
        lines.append(f"\n{more} more stand in `results/{case}/{name}.verdicts.json`.")
    return [*lines, ""]


def get_retuning(report: dict[str, Any]) -> str:
    """What moving the threshold would do for each variant that differs; "" where none does."""
    lines = []
    for name, row in report["variants"].items():
        tuned = row.get("retuning")
        if not tuned:
            continue
        if "tuning" not in tuned:
            lines += [f"**`{name}`**: not re-tuned, {tuned['reason']}.", ""]
            continue
        moved = tuned["threshold"] is not None
        held, tuning = tuned["held_out"], tuned["tuning"]
        lines += [
            f"**`{name}`**: the threshold {'moves to' if moved else 'stays;'} "
            + (f"{tuned['threshold']:.6g}: " if moved else "")
            + f"{tuned['reason']}. Tuned on {tuning['samples']} samples (flips "
            f"{tuning['flips_before']} to {tuning['flips_after']}), judged on the other "
            f"{held['samples']} ({held['flips_before']} to {held['flips_after']}).",
            f"Separable: {_separable(tuned)}",
            "",
        ]
    return "\n".join(["## Re-tuned thresholds", "", *lines]) if lines else ""


def _separable(tuned: dict[str, Any]) -> str:
    if tuned["separation"] is None:
        return "yes (the reference gives one verdict only)."
    if tuned["crossing"] is None:
        return f"yes (gap {tuned['separation']:.3g})."
    first, second = tuned["crossing"]
    return (
        f"no: at least {tuned['fewest_flips']} flips for any threshold; first crossing pair: "
        f"samples {first} and {second}."
    )


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
    return "\n".join(lines)


def get_conditions(report: dict[str, Any]) -> str:
    """Under what conditions every figure was taken."""
    where = report["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    ran = ", ".join(f"`{name}` by {provider}" for name, provider in where["providers"].items())
    lines = [
        "## Conditions",
        "",
        f"* Mode {where['mode']} ({where['why_mode']}); GPU {where['gpu']} ({where['why_gpu']}).",
        f"* {ran}.",
        f"* Latency in process, {where['threads']} threads, the variants interleaved call by call, "
        "p50, p90, p99 and throughput in `report.json`. Two medians within "
        "5 %, or whose ratio's 95 % interval holds 1, are a tie.",
        f"* {versions}.",
    ]
    for name, row in report["variants"].items():
        proof = row.get("precision_proof")
        if proof:
            tiny = proof["values_below_float16"]
            lines.append(
                f"* `{name}`: {proof['weight_share_float16']:.0%} of {proof['weight_bytes']} weight "
                f"bytes and {proof['node_share_float16']:.0%} of {proof['nodes']} nodes in float16"
                + (f"; {tiny} values below float16's smallest became that" if tiny else "")
                + "."
            )
    return "\n".join(lines) + "\n"


def get_reproduce(report: dict[str, Any]) -> str:
    """The command, and the hashes of what the report stands on."""
    where = report["conditions"]
    command = f"make all CASE={report['case']} MODE={where['mode']} GPU={where['gpu']}"
    lines = ["## Reproduce", "", f"    {command}", "", "| file | sha256 |", "|---|---|"]
    lines += [f"| {path} | `{digest[:16]}` |" for path, digest in report["inputs"].items()]
    return "\n".join(lines) + "\n"


def _sizes(report: dict[str, Any]) -> list[str]:
    return sorted(report["variants"][report["reference"]]["latency"], key=int)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _sigmoid(logit: float) -> float:
    import math

    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


if __name__ == "__main__":
    main()
