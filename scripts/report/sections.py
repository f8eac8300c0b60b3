"""The sections of the report below its first page: each is text from report.json."""

from typing import Any

from scripts.variants import part

SHOWN_FLIPS = 20


def get_gates(report: dict[str, Any]) -> str:
    """Every gate of every candidate, with what was found."""
    lines = [
        "## Gates",
        "",
        "Only what is passed counts: a gate that was not measured is not.",
        "",
        "| variant | gate | state | found |",
        "|---|---|---|---|",
    ]
    for name, row in report["variants"].items():
        for gate in row.get("gates", []):
            state = f"**{gate['state']}**" if gate["state"] == "failed" else gate["state"]
            lines.append(
                f"| `{name}` | {gate['place']} {gate['gate']} | {state} | {gate['found']} |"
            )
    return "\n".join(lines) + "\n"


def get_latency(report: dict[str, Any]) -> str:
    """Percentiles and throughput of every variant that ran, in process."""
    lines = [
        "## Latency in process",
        "",
        "| variant | batch | p50, ms | p90, ms | p99, ms | samples per second | rounds |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in report["variants"].items():
        for size, found in (row.get("latency") or {}).items():
            times = " | ".join(f"{found[f'latency_p{p}_ms']:.3g}" for p in (50, 90, 99))
            lines.append(
                f"| `{name}` | {size} | {times} | {found['throughput_per_s']:.0f} | "
                f"{found['rounds']} |"
            )
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
    return "\n".join(lines) + "\n"


def get_flips(report: dict[str, Any]) -> str:
    """Each flipped sample, nearest to the threshold first."""
    lines = ["## Flips", ""]
    for name, row in report["variants"].items():
        if not row["measured"] or name == report["reference"]:
            continue
        flips, near = row["flips"], row["deviation"]["near_threshold"]
        lines += [
            f"**`{name}`**: {flips['total']} of {row['samples']} verdicts flip{_aside(row)} "
            f"({flips['positive_to_negative']} from positive to negative, "
            f"{flips['negative_to_positive']} from negative to positive). Among the "
            f"{near['samples']} samples nearest to the threshold (within {near['width']:.3g}) the "
            f"mean absolute deviation is {number(near['mean_absolute'])}, over all samples "
            f"{number(row['deviation']['mean_absolute'])}.",
            "",
        ]
        before = report["variants"][report["reference"]]["saturated"]
        if row["saturated"] or before:
            lines += [
                f"Saturated: {row['saturated']} probabilities are exactly 0 or 1 ({before} in the "
                "reference). Their logits are set to 17.33 or -103.97, so their deviations mean "
                "little, and no threshold separates them. Give the output before the sigmoid.",
                "",
            ]
        if flips["samples"]:
            lines += _flip_table(flips["samples"], report["case"], name)
    return "\n".join(lines)


def _aside(row: dict[str, Any]) -> str:
    """The samples that calibrated a variant, which judge nothing."""
    aside = row["calibration"]
    if aside is None:
        return ""
    return f" ({aside['flips']} of {aside['samples']} more that calibrated it are not counted)"


def _flip_table(samples: list[dict[str, Any]], case: str, name: str) -> list[str]:
    lines = [
        "| sample | label | reference logit | variant logit | reference to threshold | name |",
        "|--:|--:|--:|--:|--:|---|",
    ]
    for flip in samples[:SHOWN_FLIPS]:
        lines.append(
            f"| {flip['index']} | {flip['label']} | {flip['reference_logit']:.6g} | "
            f"{number(flip['variant_logit'], 6)} | {flip['reference_distance']:+.3g} | "
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


def get_layers(report: dict[str, Any]) -> str:
    """Where in the graph a variant departs from what it was made from; "" where none was compared."""
    lines = []
    for name, row in report["variants"].items():
        found = row.get("layers")
        if not found:
            continue
        jump = found["first_jump"]
        lines += [
            f"**`{name}`** against `{found['source']}`, {found['tensors']} tensors on "
            f"{found['samples']} samples, the flipped and the nearest to the threshold first. Largest "
            f"relative error {number(found['relative_error_max'])} at `{found['largest_error']}`; "
            + (f"the error first jumps at `{jump}`. " if jump else "no tensor's error jumps. ")
            + f"Here every tensor is an output, so nothing is fused; {part(name, 'layers').how(name)} The "
            "final output differs from the unmarked model's by at most "
            f"{number(found['marked_minus_unmarked_max'])}.",
            "",
        ]  # fmt: skip
    return "\n".join(["## Layer by layer", "", *lines]) if lines else ""


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


def get_conditions(report: dict[str, Any]) -> str:
    """Under what conditions every figure was taken."""
    where = report["conditions"]
    ran = ", ".join(f"`{name}` by {provider}" for name, provider in where["providers"].items())
    gpu = f"; {where['gpu_name']}" if where["gpu_name"] else ""
    lines = [
        "## Conditions",
        "",
        f"* Mode {where['mode']} ({where['why_mode']}); GPU {where['gpu']} ({where['why_gpu']}){gpu}.",
        f"* {ran}.",
        f"* Latency with {where['threads']} threads, the variants interleaved call by call in random "
        "order. Two medians within 5 %, or whose ratio's 95 % interval holds 1, are a tie.",
    ]
    if "TensorRT" in where["providers"].values():
        lines.append(
            "* TensorRT is timed in its own container, after the others and not between them, through "
            "polygraphy's runner and with the copies to and from the GPU."
        )
    for image, packages in where["versions"].items():
        listed = ", ".join(f"{name} {v}" for name, v in packages.items() if name != "image")
        run = "" if image == "none" else f"Image {packages['image']}: "
        lines.append(f"* {run}{listed}.")
    for name, row in report["variants"].items():
        proof = row.get("precision_proof")
        if proof:
            tiny = proof.get("values_below_float16", 0)
            lines.append(
                f"* `{name}`: {_proof(proof)}"
                + (f"; {tiny} values below float16's smallest became that" if tiny else "")
                + "."
            )
    return "\n".join(lines) + "\n"


def _proof(proof: dict[str, Any]) -> str:
    low = proof["precision"] if proof["precision"] != "float32" else "float16"
    if proof["share_of"] == "layers":
        unknown = f" ({proof['undetermined']} more name no type)" if proof["undetermined"] else ""
        return f"{proof[f'nodes_{low}']} of {proof['nodes']} layers of the engine{unknown} in {low}"
    return (
        f"{proof[f'weight_share_{low}']:.0%} of {proof['weight_bytes']} weight bytes and "
        f"{proof[f'node_share_{low}']:.0%} of {proof['nodes']} nodes in {low}"
    )


def get_reproduce(report: dict[str, Any]) -> str:
    """The command, and the hashes of what the report stands on."""
    where = report["conditions"]
    release = "" if where["release"] == "none" else f" RELEASE={where['release']}"
    command = f"make all CASE={report['case']} MODE={where['mode']} GPU={where['gpu']}{release}"
    lines = ["## Reproduce", "", f"    {command}", "", "| file | sha256 |", "|---|---|"]
    lines += [f"| {path} | `{digest[:16]}` |" for path, digest in report["inputs"].items()]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A deviation or logit as text; None stands for one that is not finite."""
    return "not finite" if value is None else f"{value:.{digits}g}"
