"""The sections of the report on what may be relied on: the release, claims, margins, policies."""

from typing import Any

POLICIES = {
    "max_recall": "highest recall at the wanted precision on these samples",
    "widest_gap": "widest gap, for a little recall",
    "bounded": "lower bound of the precision reaches it, on the samples that chose",
    "guarantee": "precision guaranteed on new data",
}


def get_release(report: dict[str, Any]) -> list[str]:
    """One line for the first page: what `make gate` says."""
    told = report["decision"]
    line = f"**Release: {told['verdict']}** (`make gate` exit {told['exit']}): {told['words']}."
    fallback = told["fallback"]
    if told["exit"] and fallback and fallback != report["recommendation"]["variant"]:
        passes = (
            "passes every gate" if told["fallback_passes"] else "does not pass every gate either"
        )
        line += f" The fallback `{fallback}` {passes}."
    return [line]


def get_sensitivity(report: dict[str, Any]) -> str:
    """What would have to change for another variant to win; "" where nothing would."""
    found = report["recommendation"]["sensitivity"]
    if not found:
        return ""
    return "\n".join(["## How firm the choice is", "", *(f"* {one}." for one in found)]) + "\n"


def get_claims(report: dict[str, Any]) -> str:
    """Bounds on new data, from samples that chose nothing; or why there are none."""
    claims = report["claims"]
    lines = ["## What is claimed of new data", ""]
    if "refused" in claims or not claims:
        why = claims.get("refused", "no converted variant ran")
        return "\n".join([*lines, f"Nothing: {why}."]) + "\n"
    if claims["scheme"] == "cross-fitting":
        how = (
            f"Cross-fitting in {claims['folds']} folds: the threshold and re-tuned thresholds of each fold "
            "are chosen without it, and the verdicts on the folds are pooled. The folds' thresholds differ a "
            "little from the one deployed, so the bounds hold for the way of choosing it."
        )
    else:
        how = "Three parts: one fixes the threshold, one re-tunes, the third is judged. The bounds are exact."
    if claims["grouped"]:
        how += " Groups stay whole, and a group with a flip counts once."
    lines += [
        f"{how} A sample counts as flipped where it flips under any condition: in process or in Triton, in "
        "any batch or slot, or with the deployed threshold. A variant is never judged on samples that "
        "calibrated or repaired it.",
        "",
        "| variant | flips | of new ones flip at most | for 0.1 % are needed | expected per million | "
        "precision at least | better, worse against the labels | p of harm |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in _claimed(report):
        claim = row["claim"]
        foretold = claim["forecast"]
        million = (
            f"{foretold['per_million']:.3g} ({foretold['low']:.3g} to {foretold['high']:.3g})"
            if foretold
            else "-"
        )
        lower = claim["precision"]["lower"]
        test = claim["mcnemar"]
        lines.append(
            f"| `{name}` | {claim['bounded']['flips']} of {claim['bounded']['samples']} | "
            f"{100 * claim['flip_rate_upper']:.3g}% | {claim['samples_needed']['0.001']} | {million} | "
            f"{'-' if lower is None else f'{lower:.3f}'} | {test['better']}, {test['worse']} | "
            f"{test['p_harm']:.2g} |"
        )
    lines += [
        "",
        f"Bounds hold with {claims['confidence']:.0%} confidence for all {claims['variants_compared']} variants "
        f"together (alpha {claims['alpha']:.3g} each): flips d of n give the Clopper-Pearson bound "
        "BetaInv(1 - alpha; d + 1, n - d), and without a flip about -ln(alpha) / n. Expected flips: density of the "
        "logits at the threshold times the mean absolute deviation there, with a bootstrap interval. Harm: "
        "McNemar's exact test, one-sided; it can show harm, and never parity.",
        "",
    ]
    reference = claims["reference"]["precision"]
    if reference["lower"] is not None:
        lines.append(
            f"The PyTorch model itself: precision {reference['value']:.4f} "
            f"({reference['true_positives']} of {reference['predicted_positives']}) on samples that did not choose "
            f"the threshold; on new data at least {reference['lower']:.4f}."
        )
    return "\n".join(lines) + "\n"


def _claimed(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, row)
        for name, row in report["variants"].items()
        if row.get("claim") and row["claim"]["samples"]
    ]


def get_margins(report: dict[str, Any]) -> str:
    """How far verdicts are from flipping; the ten smallest margins of the recommended variant."""
    rows = _claimed(report)
    if not rows:
        return ""
    lines = [
        "## Margins",
        "",
        "Margin: how far the reference's logit lies from the threshold. Safety factor: how many times larger a "
        "sample's deviation would have to be to flip it. Below 1 and no flip: it moved away from the threshold.",
        "",
        "| variant | smallest safety factor | largest deviation near the threshold | samples beyond its reach |",
        "|---|--:|--:|--:|",
    ]
    for name, row in rows:
        found = row["claim"]["certificate"]
        factor = found["min_safety_factor"]
        deviation = found["max_deviation"]
        lines.append(
            f"| `{name}` | {'-' if factor is None else f'{factor:.3g}'} | "
            f"{'not finite' if deviation is None else f'{deviation:.3g}'} (of {found['band_samples']}) | "
            f"{found['coverage']:.2%} |"
        )
    chosen = report["recommendation"]["variant"]
    nearest = dict(rows).get(chosen, {}).get("claim", {}).get("certificate", {}).get("nearest")
    if nearest:
        lines += ["", f"The smallest margins with `{chosen}`:", "",
                  "| sample | margin | safety factor |", "|--:|--:|--:|"]  # fmt: skip
        for one in nearest:
            factor = one["safety_factor"]
            shown = "no deviation" if factor is None else f"{factor:.3g}"
            lines.append(f"| {one['index']} | {one['margin']:.3g} | {shown} |")
    return "\n".join(lines) + "\n"


def get_policies(report: dict[str, Any]) -> str:
    """What each way of choosing the threshold would cost in recall on this case."""
    told = report["policies"]
    lines = [
        "## Ways to choose the threshold",
        "",
        f"In force: {told['policy']}. Set `policy` or `guarantee` in [threshold] of case.toml for another.",
        "",
        "| way | threshold | gap below | precision | recall |",
        "|---|--:|--:|--:|--:|",
    ]
    reasons = []
    for name, found in told["policies"].items():
        if "reason" in found:
            lines.append(f"| {name}: {POLICIES[name]} | - | - | - | - |")
            reasons.append(f"* {name}: {found['reason']}.")
            continue
        gap = "-" if found["gap"] is None else f"{found['gap']:.3g}"
        lines.append(
            f"| {name}: {POLICIES[name]} | {found['logit']:.6g} | {gap} | {found['precision']:.4f} "
            f"({found['true_positives']} of {found['predicted_positives']}) | {found['recall']:.4f} |"
        )
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"
