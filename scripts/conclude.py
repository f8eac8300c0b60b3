"""Draw the conclusion: gates, then latency and size; one recommendation, one reason per loser.

Reads   case.toml and the result files of all steps in results/<case>/
Writes  report.json: the facts of the report, for programs
Runs    anywhere: it computes only from those files
Usage   python3 -m scripts.conclude data/digits/case.toml --results results/digits \
            --mode local --why-mode "asked for" --gpu no --why-gpu "nvidia-smi lists none here" \
            --out results/digits/report.json
Prints  digits: onnx_fp32 goes to production
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from scripts.case import read_case
from scripts.choose_variant import choose, gates
from scripts.files import hashes, read_json, sha256, write_json
from scripts.variants import BY_NAME, REFERENCE, VARIANTS, not_here

SCHEMA = 1


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--results", required=True, type=click.Path(path_type=Path))
@click.option("--mode", required=True, type=click.Choice(["local", "docker"]))
@click.option("--why-mode", required=True, help="Why this mode: for the reader.")
@click.option("--gpu", required=True, type=click.Choice(["yes", "no"]))
@click.option("--why-gpu", required=True, help="Why with or without a GPU: for the reader.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(
    case_toml: Path, results: Path, mode: str, why_mode: str, gpu: str, why_gpu: str, out: Path
) -> None:
    case = read_case(case_toml)
    reasons = {v.name: not_here(v, gpu == "yes", case.skip) for v in VARIANTS}
    measured = [name for name, reason in reasons.items() if reason is None]
    found = collect(results, measured)
    check_fresh(found, case.name)
    place = (mode, "cuda" if gpu == "yes" else "cpu")
    conditions = check_same_place(found, case.name, place) | {
        "mode": mode,
        "why_mode": why_mode,
        "gpu": gpu,
        "why_gpu": why_gpu,
    }
    report = conclude(case.name, case.precision, found, reasons) | {"conditions": conditions}
    report["inputs"] = hashes([case_toml, *(results / name for name in found)])
    write_json(out, report)
    variant = report["recommendation"]["variant"]
    click.echo(f"{case.name}: {variant or 'no variant'} goes to production")


def collect(folder: Path, measured: list[str]) -> dict[str, dict[str, Any]]:
    """file name -> content of every result that the report stands on."""
    names = ["samples.json", "torch_fp32.check.json", "torch_fp32.threshold.json", "latency.json"]
    for variant in measured:
        names += [f"{variant}.score.json", f"{variant}.verdicts.json"]
        names += [f"{variant}.precision.json"] if variant != REFERENCE.name else []
        made_from_onnx = BY_NAME[variant].source not in (None, REFERENCE.name)
        names += [f"{variant}.layers.json"] if made_from_onnx else []
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


def check_same_place(
    found: dict[str, dict[str, Any]], case: str, place: tuple[str, str]
) -> dict[str, Any]:
    """Refuse results of another mode or device than `place`, or of two versions of a package.

    Else what they share: device, threads, versions.
    """
    places: dict[tuple[str, str], str] = {place: "now asked for"}
    versions: dict[str, str] = {}
    for name, result in found.items():
        if "device" in result:
            places.setdefault((result["mode"], result["device"]), name)
        for package, version in result.get("versions", {}).items():
            if versions.setdefault(package, version) != version:
                raise click.ClickException(
                    f"results/{case} mixes {package} {versions[package]} and {version} (in {name}). "
                    f"Run: make clean CASE={case} && make all CASE={case}"
                )
    if len(places) > 1:
        shown = "; ".join(f"{name}: {mode}, {device}" for (mode, device), name in places.items())
        raise click.ClickException(
            f"results/{case} mixes modes or devices ({shown}). "
            f"Run: make clean CASE={case} && make all CASE={case}"
        )
    latency = found["latency.json"]
    return {
        "device": latency["device"],
        "threads": latency["threads"],
        "providers": {r["variant"]: r["provider"] for r in found.values() if "provider" in r},
        "versions": dict(sorted(versions.items())),
    }


def layers(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the report says of a comparison layer by layer; the tensors themselves stay there."""
    if found is None:
        return None
    keys = (
        "source",
        "largest_error",
        "first_jump",
        "beyond_half_range",
        "marked_minus_unmarked_max",
    )
    errors = {one["name"]: one["relative_error"] for one in found["tensors"]}
    return {key: found[key] for key in keys} | {
        "tensors": len(found["tensors"]),
        "samples": len(found["samples"]),
        "relative_error_max": errors[found["largest_error"]],
    }


def conclude(
    case: str,
    precision: Fraction,
    found: dict[str, dict[str, Any]],
    reasons: dict[str, str | None],
) -> dict[str, Any]:
    """The report's facts, from the result files alone. `reasons`: why a variant was not measured."""
    threshold = found["torch_fp32.threshold.json"]
    variants: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        reason = reasons[variant.name]
        row: dict[str, Any] = {"measured": reason is None, "sentence": variant.sentence}
        if reason is not None:
            variants[variant.name] = row | {"reason": reason}
            continue
        verdicts = found[f"{variant.name}.verdicts.json"]
        retuning = verdicts["retuning"]
        proof = found.get(f"{variant.name}.precision.json", {}).get("metrics")
        score = found[f"{variant.name}.score.json"]
        row |= {
            key: verdicts[key]
            for key in ("samples", "flips", "deviation", "vs_reference", "vs_labels", "nonfinite")
        }
        row["saturated"] = score["metrics"]["saturated"]
        row["retuned_threshold"] = retuning["threshold"] if retuning else None
        row["retuning"] = retuning
        row["precision_proof"] = proof
        row["layers"] = layers(found.get(f"{variant.name}.layers.json"))
        row["latency"] = found["latency.json"]["variants"].get(variant.name)
        if variant.file is not None:
            row["gates"] = gates(row, variant.precision, precision)
        variants[variant.name] = row
    samples = found["samples.json"]
    return {
        "schema": SCHEMA,
        "case": case,
        "reference": REFERENCE.name,
        "samples": samples["samples"],
        "positives": samples["positives"],
        "wanted_precision": threshold["wanted_precision"],
        "threshold": threshold["metrics"],
        "variants": variants,
        "recommendation": choose(variants, threshold["metrics"]["logit"]),
    }


if __name__ == "__main__":
    main()
