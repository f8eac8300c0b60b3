"""Draw the conclusion: gates, then latency and size; one recommendation, one reason per loser.

Reads   case.toml and the result files of all steps in results/<case>/
Writes  report.json: the facts of the report, for programs
Runs    anywhere: it computes only from those files
Usage   python3 -m scripts.release.conclude data/digits/case.toml --results results/digits \
            --mode local --why-mode "asked for" --gpu no --why-gpu "nvidia-smi lists none here" \
            --release none --served yes --out results/digits/report.json
Prints  digits: onnx_fp32 goes to production
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import read_case
from scripts.case.rules import Rules
from scripts.files import hashes, read_json, write_json
from scripts.release.choose_variant import choose
from scripts.release.facts import (
    Place,
    check_fresh,
    check_same_place,
    collect,
    decide,
    latencies,
    why_not,
)
from scripts.release.gates import FAILED, gates
from scripts.release.gates import decide as decide_release
from scripts.step import step
from scripts.variants import BY_NAME, FAMILIES, REFERENCES, Variant, of_family

SCHEMA = 3


LOAD = (
    "best", "levels", "flips", "samples_checked", "memory_mb", "gpu_memory_mb", "start_s",
)  # fmt: skip
CLAIMS = (
    "refused", "scheme", "folds", "seed", "grouped", "confidence", "variants_compared", "alpha",
    "samples", "thresholds", "reference",
)  # fmt: skip
REPAIR = (
    "repairs", "made", "reason", "kept", "nodes", "ways", "tuning", "held_out", "smallest", "alone",
    "conversions", "runs",
)  # fmt: skip


@step(__doc__, "case", "results", "mode", "gpu", "served", "out")
@click.option("--why-mode", required=True, help="Why this mode: for the reader.")
@click.option("--why-gpu", required=True, help="Why with or without a GPU: for the reader.")
@click.option("--release", required=True, help='Release of the containers, YY.MM; "none" without.')
def main(
    case_toml: Path, results: Path, mode: str, why_mode: str, gpu: str, why_gpu: str, release: str,
    served: str, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    place = (case.family, mode, gpu == "yes", case.skip)
    decisions = decide(results, *place)
    reasons = why_not(decisions, *place)
    measured = [name for name, reason in reasons.items() if reason is None]
    found = collect(results, measured, served == "yes", mode == "docker") | decisions
    check_fresh(found, case.name)
    conditions = {
        "mode": mode,
        "why_mode": why_mode,
        "gpu": gpu,
        "why_gpu": why_gpu,
        "release": release,
        "served": served,
    } | check_same_place(found, case.name, Place(mode, "cuda" if gpu == "yes" else "cpu", release))
    report = conclude(case.name, case.precision, case.rules, found, reasons, case.family)
    report["conditions"] = conditions
    by_hand = results / "promotion.json"
    promoted = read_json(by_hand)["variant"] if by_hand.is_file() else None
    report["promotion"] = promotion(report, promoted)
    report["inputs"] = hashes([case_toml, *(results / name for name in found)])
    write_json(out, report)
    variant = report["recommendation"]["variant"]
    told = report["decision"]["verdict"]
    click.echo(f"{case.name}: {variant or 'no variant'} goes to production; make gate: {told}")


def layers(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the report says of a comparison layer by layer; the tensors themselves stay there."""
    if found is None:
        return None
    keys = ("source", "largest_error", "first_jump", "marked_minus_unmarked_max")
    errors = {one["name"]: one["relative_error"] for one in found["tensors"]}
    return {key: found[key] for key in keys} | {
        "tensors": len(found["tensors"]),
        "samples": len(found["samples"]),
        "relative_error_max": errors[found["largest_error"]],
    }


SHOWN_CULPRITS = 5


def culprits(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the report says of the nodes that move verdicts; all stand in <variant>.culprits.json."""
    if found is None:
        return None
    return {
        "samples": len(found["samples"]),
        "nodes": found["nodes"],
        "ways": found["ways"],
        "first": found["segments"][:SHOWN_CULPRITS],
    }


def span(found: dict[str, dict[str, Any]], variant: Variant) -> dict[str, Any] | None:
    """The tensors of a float16 variant that pass float16's range, or half of it, on the test set.

    An engine's are those of the ONNX it is built from. None for other precisions.
    """
    if variant.precision != "float16":
        return None
    metrics = found[f"{variant.name}.precision.json"]["metrics"]
    if "beyond" not in metrics and variant.source:
        return span(found, BY_NAME[variant.source])
    return {key: metrics[key] for key in ("beyond", "beyond_half")}


def served(found: dict[str, dict[str, Any]], variant: str) -> dict[str, Any] | None:
    """What the report says of a variant in Triton: parity, and latency under load; None: not served.

    `load` is what our own client measured, `perf` what perf_analyzer did, where that ran.
    """
    parity = found.get(f"{variant}.served.json")
    if parity is None:
        return None
    load = found["served_latency.json"]["variants"][variant]
    perf = found.get(f"{variant}.perf.json")
    keys = ("server", "in_flight", "conditions", "statistics")
    return {key: parity[key] for key in keys} | {
        "samples": sorted({*parity["samples"], *load["samples"]}),
        "load": {key: load[key] for key in LOAD if key in load},
        "perf": perf and {key: perf[key] for key in ("best", "levels")},
    }


def promotion(report: dict[str, Any], variant: str | None) -> dict[str, Any] | None:
    """What was said by hand to go to production: variant, threshold, the gates that it fails."""
    if variant is None:
        return None
    row = report["variants"][variant]
    if "gates" not in row:
        raise click.ClickException(
            f"{variant} was promoted by hand, and it is {row.get('reason', 'no model to serve')}. "
            f"Run: make promote VARIANT=recommended CASE={report['case']}"
        )
    moved = row["retuned_threshold"]
    return {
        "variant": variant,
        "threshold": report["threshold"]["logit"] if moved is None else moved,
        "failed_gates": [gate["gate"] for gate in row["gates"] if gate["state"] == FAILED],
        "open_gates": [
            gate["gate"] for gate in row["gates"] if not gate["passed"] and gate["state"] != FAILED
        ],
    }


def repeats(found: dict[str, Any]) -> dict[str, Any]:
    """What the report says of the scoring under other conditions."""
    return {key: found[key] for key in ("conditions", "samples", "noise", "metrics")}


def conclude(
    case: str,
    precision: Fraction,
    rules: Rules,
    found: dict[str, dict[str, Any]],
    reasons: dict[str, str | None],
    family: str = FAMILIES[0],
) -> dict[str, Any]:
    """The report's facts, from the result files alone. `reasons`: why a variant was not measured."""
    reference = REFERENCES[family].name
    threshold = found[f"{reference}.threshold.json"]
    noise = frozenset(found[f"{reference}.repeats.json"]["noise"])
    timed = {
        name: times
        for file in latencies([name for name, reason in reasons.items() if reason is None])
        for name, times in found[file]["variants"].items()
    }
    claimed = found.get("claims.json", {"variants": {}})
    variants: dict[str, dict[str, Any]] = {}
    for variant in of_family(family):
        reason = reasons[variant.name]
        row: dict[str, Any] = {
            "measured": reason is None,
            "sentence": variant.sentence,
            "runtime": variant.runtime,
        }
        repair = found.get(f"{variant.name}.repair.json")
        row["repair"] = repair and {key: repair[key] for key in REPAIR if key in repair}
        if reason is not None:
            variants[variant.name] = row | {"reason": reason}
            continue
        verdicts = found[f"{variant.name}.verdicts.json"]
        retuning = verdicts["retuning"]
        proof = found.get(f"{variant.name}.precision.json", {}).get("metrics")
        score = found[f"{variant.name}.score.json"]
        row |= {
            key: verdicts[key]
            for key in (
                "samples",
                "flips",
                "held_out",
                "calibration",
                "deviation",
                "vs_reference",
                "vs_labels",
                "nonfinite",
            )
        }
        row["saturated"] = score["metrics"]["saturated"]
        row["retuned_threshold"] = retuning["threshold"] if retuning else None
        row["retuning"] = retuning
        row["precision_proof"] = proof
        row["range"] = span(found, variant)
        row["culprits"] = culprits(found.get(f"{variant.name}.culprits.json"))
        row["layers"] = layers(found.get(f"{variant.name}.layers.json"))
        row["repeats"] = repeats(found[f"{variant.name}.repeats.json"])
        row["latency"] = timed.get(variant.name)
        row["served"] = served(found, variant.name)
        if variant.file is not None:
            refused = {"refused": claimed["refused"]} if "refused" in claimed else {}
            row["claim"] = claimed["variants"].get(variant.name, {"samples": 0} | refused)
            row["gates"] = gates(row, variant.precision, precision, rules, noise)
        variants[variant.name] = row
    samples = found["samples.json"]
    recommendation = choose(variants, threshold["metrics"]["logit"], rules)
    return {
        "schema": SCHEMA,
        "case": case,
        "reference": reference,
        "samples": samples["samples"],
        "positives": samples["positives"],
        "wanted_precision": threshold["wanted_precision"],
        "threshold": threshold["metrics"],
        "policies": {key: threshold[key] for key in ("policy", "guarantee", "policies")},
        "rules": vars(rules),
        "data": {
            path: digest
            for path, digest in samples["inputs"].items()
            if not path.endswith("case.toml")
        },
        "claims": {key: claimed[key] for key in CLAIMS if key in claimed},
        "variants": variants,
        "recommendation": recommendation,
        "decision": decide_release(variants, recommendation["variant"]),
    }


if __name__ == "__main__":
    main()
