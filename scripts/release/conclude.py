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
from typing import Any, NamedTuple

import click

from scripts.case.read_case import read_case
from scripts.case.rules import Rules
from scripts.files import hashes, read_json, sha256, write_json
from scripts.release.choose_variant import choose
from scripts.release.gates import FAILED, gates
from scripts.release.gates import decide as decide_release
from scripts.variants import BY_NAME, NOT_MADE, REFERENCE, VARIANTS, Variant, not_here, undecided

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


class Place(NamedTuple):
    """Where results were computed."""

    mode: str  # local, docker
    device: str  # cpu, cuda
    release: str  # of the containers; "none" without

    def words(self) -> str:
        """For a sentence."""
        release = "" if self.release == "none" else f" {self.release}"
        return f"{self.mode}{release}, {self.device}"

    def settings(self) -> str:
        """What make is told."""
        release = "" if self.release == "none" else f" RELEASE={self.release}"
        return f"MODE={self.mode} GPU={'yes' if self.device == 'cuda' else 'no'}{release}"


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--results", required=True, type=click.Path(path_type=Path))
@click.option("--mode", required=True, type=click.Choice(["local", "docker"]))
@click.option("--why-mode", required=True, help="Why this mode: for the reader.")
@click.option("--gpu", required=True, type=click.Choice(["yes", "no"]))
@click.option("--why-gpu", required=True, help="Why with or without a GPU: for the reader.")
@click.option("--release", required=True, help='Release of the containers, YY.MM; "none" without.')
@click.option("--served", required=True, type=click.Choice(["yes", "no"]))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(
    case_toml: Path, results: Path, mode: str, why_mode: str, gpu: str, why_gpu: str, release: str,
    served: str, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    place = (mode, gpu == "yes", case.skip)
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
    report = conclude(case.name, case.precision, case.rules, found, reasons)
    report["conditions"] = conditions
    by_hand = results / "promotion.json"
    promoted = read_json(by_hand)["variant"] if by_hand.is_file() else None
    report["promotion"] = promotion(report, promoted)
    report["inputs"] = hashes([case_toml, *(results / name for name in found)])
    write_json(out, report)
    variant = report["recommendation"]["variant"]
    told = report["decision"]["verdict"]
    click.echo(f"{case.name}: {variant or 'no variant'} goes to production; make gate: {told}")


def decide(folder: Path, mode: str, gpu: bool, skip: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """file name -> content of what steps decided on variants that are made only with a reason."""
    decisions: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        if variant.decided and not undecided(variant, mode, gpu, skip, made(decisions)):
            name = f"{variant.name}.{variant.decided}.json"
            decisions[name] = read_json(folder / name)
    return decisions


def made(decisions: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The variants that were decided to be made."""
    return tuple(one["variant"] for one in decisions.values() if one.get("made"))


def why_not(
    decisions: dict[str, dict[str, Any]], mode: str, gpu: bool, skip: tuple[str, ...]
) -> dict[str, str | None]:
    """variant -> why it was not measured, as a phrase; None where it was."""
    decided = {one["variant"]: one["reason"] for one in decisions.values() if "made" in one}
    reasons = {}
    for variant in VARIANTS:
        why = not_here(variant, mode, gpu, skip, made(decisions))
        reasons[variant.name] = decided[variant.name] if why == NOT_MADE else why
    return reasons


def collect(
    folder: Path, measured: list[str], served: bool, perf: bool = False
) -> dict[str, dict[str, Any]]:
    """file name -> content of every result that the report stands on.

    `served`: through Triton too; `perf`: and there by perf_analyzer, too.
    """
    names = ["samples.json", "torch_fp32.check.json", "torch_fp32.threshold.json", "latency.json"]
    names += ["claims.json"] if any(BY_NAME[variant].file for variant in measured) else []
    if any(BY_NAME[variant].runtime == "tensorrt" for variant in measured):
        names.append("latency_tensorrt.json")
    for variant in measured:
        names += [f"{variant}.{step}.json" for step in ("score", "verdicts", "repeats")]
        names += [f"{variant}.precision.json"] if variant != REFERENCE.name else []
        made_from_onnx = BY_NAME[variant].source not in (None, REFERENCE.name)
        names += ["onnx_fp32.range.json"] if variant == "onnx_fp32" else []
        if any(one.repairs == variant for one in VARIANTS):
            names.append(f"{variant}.culprits.json")
        names += [f"{variant}.layers.json"] if made_from_onnx else []
        if served and BY_NAME[variant].file:
            names += [f"{variant}.served.json"] + ([f"{variant}.perf.json"] if perf else [])
    names += ["served_latency.json"] if any(name.endswith(".served.json") for name in names) else []
    return {name: read_json(folder / name) for name in names}


def check_fresh(found: dict[str, dict[str, Any]], case: str) -> None:
    """Refuse results computed from a file that has changed since, or from two states of one."""
    seen: dict[str, tuple[str, str]] = {}
    for name, result in found.items():
        for path, recorded in result["inputs"].items():
            if path not in seen:
                now = sha256(Path(path)) if Path(path).is_file() else recorded
                seen[path] = (now, name)
            if seen[path][0] != recorded:
                raise click.ClickException(
                    f"results/{case}/{name} was computed from another {path} than "
                    f"{'stands there now' if Path(path).is_file() else seen[path][1] + ' was'}. "
                    f"Run: rm results/{case}/{name} && make all CASE={case}"
                )


def check_same_place(found: dict[str, dict[str, Any]], case: str, place: Place) -> dict[str, Any]:
    """Refuse results of another mode, device, release or GPU, of two builds of an image, or of two
    versions of a package in one image.

    Else what they share: device, threads, GPU, versions, images.
    """
    again = f"Run: make clean CASE={case} && make all CASE={case} {place.settings()}"
    versions: dict[tuple[str, str], str] = {}
    gpus: dict[str, str] = {}
    for name, result in found.items():
        told = result.get("versions", {})
        image, release, _ = (*told.get("image", "none").split(" "), "none", "none")[:3]
        where = Place(
            result.get("mode", "local" if image == "none" else "docker"),
            result.get("device", place.device),
            release,
        )
        if where != place:
            raise click.ClickException(
                f"results/{case} mixes modes, devices or releases (now asked for: {place.words()}; "
                f"{name}: {where.words()}). {again}"
            )
        if result.get("gpu"):
            gpus.setdefault(result["gpu"], name)
        for package, version in told.items():
            if versions.setdefault((image, package), version) != version:
                raise click.ClickException(
                    f"results/{case} mixes {package} {versions[image, package]} and {version} "
                    f"(in {name}). {again}"
                )
    if len(gpus) > 1:
        raise click.ClickException(f"results/{case} mixes GPUs ({'; '.join(gpus)}). {again}")
    return {
        "device": place.device,
        "gpu_name": next(iter(gpus), None),
        "threads": found["latency.json"]["threads"],
        "providers": {r["variant"]: r["provider"] for r in found.values() if "provider" in r},
        "versions": {
            image: {package: v for (one, package), v in sorted(versions.items()) if one == image}
            for image in dict.fromkeys(image for image, _ in versions)
        },
    }


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
    source = variant.source if variant.runtime == "tensorrt" else variant.name
    metrics = found[f"{source}.precision.json"]["metrics"]
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
) -> dict[str, Any]:
    """The report's facts, from the result files alone. `reasons`: why a variant was not measured."""
    threshold = found["torch_fp32.threshold.json"]
    noise = frozenset(found["torch_fp32.repeats.json"]["noise"])
    timed = {
        name: times
        for file in ("latency.json", "latency_tensorrt.json")
        for name, times in found.get(file, {"variants": {}})["variants"].items()
    }
    claimed = found.get("claims.json", {"variants": {}})
    variants: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
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
        "reference": REFERENCE.name,
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
